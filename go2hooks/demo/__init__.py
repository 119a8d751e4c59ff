"""`go2hooks demo`: the whole pipeline at work, and the proof that it did what it promises.

plan      what is sent, and to which webhooks
ledger    what has to arrive, and what did: every request is checked as it comes in
verdict   ledger and API compared, delivery by delivery
control   the REST API, as a customer uses it
screen    what is shown, live or line by line
run       stack, receiver, producer and screen put together
"""
