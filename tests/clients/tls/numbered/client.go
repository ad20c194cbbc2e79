// The same as client.py on Go's net/http: a goroutine a number, each with a client and so a connection of its own. idle=1: does
// nothing until it is killed.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func number(settings map[string]string, name string) int {
	value, err := strconv.Atoi(settings[name])
	check(err)
	return value
}

func talk(settings map[string]string, roots *x509.CertPool, own int) {
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	defer client.CloseIdleConnections()
	for range make([]struct{}, number(settings, "requests")) {
		request, err := http.NewRequest("GET", "https://"+settings["host"]+":"+settings["port"]+"/", nil)
		check(err)
		request.Host = fmt.Sprintf("n%d.test", own)
		response, err := client.Do(request)
		check(err)
		_, err = io.Copy(io.Discard, response.Body)
		check(err)
		check(response.Body.Close())
		if response.StatusCode != http.StatusOK {
			check(fmt.Errorf("status %d", response.StatusCode))
		}
	}
}

func main() {
	settings := map[string]string{}
	for _, word := range os.Args[1:] {
		name, value, _ := strings.Cut(word, "=")
		settings[name] = value
	}
	if settings["idle"] == "1" {
		time.Sleep(time.Hour)
	}
	pem, err := os.ReadFile(settings["ca"])
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	var all sync.WaitGroup
	for own := range make([]struct{}, number(settings, "connections")) {
		all.Add(1)
		go func(own int) {
			defer all.Done()
			talk(settings, roots, own)
		}(own)
	}
	all.Wait()
}
