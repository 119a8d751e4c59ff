"""`go2hooks demo`: run the whole pipeline, and check that nothing was lost.

plan      the events, and the webhooks that get them
ledger    expected and received requests; each request is checked when it arrives
verdict   compares the ledger with the API, delivery by delivery
control   a client of the REST API
screen    shows the progress, live or line by line
run       runs stack, receiver, producer and screen
"""
