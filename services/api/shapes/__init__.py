"""What answers look like: the handlers are typed by it, and the API's document is made from it.

TypedDicts rather than models: an answer is put together once and not validated a second time. The string below a field is
its description in the document.
"""
