// A server on Go's net/http and crypto/tls. Settings are key=value words: cert, key. Prints its port, and once its input has ended
// a line for each request that it answered, in their order: the client's port and the Host header.
package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	settings := map[string]string{}
	for _, word := range os.Args[1:] {
		name, value, _ := strings.Cut(word, "=")
		settings[name] = value
	}
	var lock sync.Mutex
	var log []string
	answer := func(response http.ResponseWriter, request *http.Request) {
		_, port, err := net.SplitHostPort(request.RemoteAddr)
		check(err)
		lock.Lock()
		log = append(log, port+" "+request.Host)
		lock.Unlock()
		_, _ = io.WriteString(response, "hello\n")
	}
	certificate, err := tls.LoadX509KeyPair(settings["cert"], settings["key"])
	check(err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	config := &tls.Config{Certificates: []tls.Certificate{certificate}}
	go func() { check(http.Serve(tls.NewListener(listener, config), http.HandlerFunc(answer))) }()
	_, err = io.Copy(io.Discard, os.Stdin)
	check(err)
	lock.Lock()
	out := bufio.NewWriter(os.Stdout)
	for _, line := range log {
		fmt.Fprintln(out, line)
	}
	check(out.Flush())
}
