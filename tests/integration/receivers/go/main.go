// Answers each POST with what the functions of the page say about it: Go2's signature, Standard Webhooks, the library.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"

	"receiver/webhooks"
)

var libraryOK func(secret string, headers http.Header, body []byte) bool

func main() {
	secret := os.Getenv("WEBHOOK_SECRET")
	handler := func(writer http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			log.Fatal(err)
		}
		bodyOK := webhooks.BodyOK(secret, request.Header, body)
		fmt.Fprint(writer, bodyOK, " ", webhooks.StandardOK(secret, request.Header, body, 5*time.Minute))
		if libraryOK != nil {
			fmt.Fprint(writer, " ", libraryOK(secret, request.Header, body))
		}
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), http.HandlerFunc(handler)))
}
