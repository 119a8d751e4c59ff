package main

import "receiver/webhooks"

// Compiled only where the library could be fetched.
func init() { libraryOK = webhooks.LibraryOK }
