// A server or a client on Go's net/http, with settings, bodies, hosts and output as in soak.mjs.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	errorsTold = 5
	patience   = time.Minute
)

var lengths = [...]int{1, 200, 3_000, 20_000}

type tally struct {
	lock        sync.Mutex
	Requests    int      `json:"requests"`
	Failed      int      `json:"failed"`
	Connections int      `json:"connections"`
	SlowestMs   float64  `json:"slowest_ms"`
	Errors      []string `json:"errors"`
}

// Changes it, and returns how many requests there were before.
func (t *tally) change(how func()) int {
	t.lock.Lock()
	defer t.lock.Unlock()
	before := t.Requests
	how()
	return before
}

func (t *tally) fail(why error) {
	t.change(func() {
		t.Failed++
		if len(t.Errors) < errorsTold {
			t.Errors = append(t.Errors, why.Error())
		}
	})
}

func (t *tally) say() {
	t.change(func() {
		text, err := json.Marshal(t)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(text))
	})
}

var (
	settings = map[string]string{}
	counted  = tally{Errors: []string{}}
	stopped  atomic.Bool
)

// Go gives a connection up when it learns more than 50 ms after the answer that the request was sent, as happens on a busy machine.
// Nothing of the next request has been sent then.
var errNotKept = errors.New("the connection was not kept")

func number(name string) int {
	parsed, err := strconv.Atoi(settings[name])
	if err != nil {
		log.Fatalf("%s: %v", name, err)
	}
	return parsed
}

func echo(answer http.ResponseWriter, asked *http.Request) {
	body, err := io.ReadAll(asked.Body)
	_, port, _ := net.SplitHostPort(asked.RemoteAddr)
	if parts := strings.Split(asked.Host, "."); err == nil && (len(parts) < 2 || parts[1] != "c"+port) {
		err = fmt.Errorf("%s from %s", asked.Host, port)
	}
	counted.change(func() { counted.Requests++ })
	if err != nil {
		counted.fail(err)
		panic(http.ErrAbortHandler)
	}
	answer.Header().Set("Content-Length", strconv.Itoa(len(body)))
	answer.Write(body)
}

func serve() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	server := &http.Server{Handler: http.HandlerFunc(echo), ConnState: func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			counted.change(func() { counted.Connections++ })
		}
	}}
	go func() { log.Fatal(server.ServeTLS(listener, settings["cert"], settings["key"])) }()
}

// A connection and what sends over it; a request that would need another one fails.
type link struct {
	*http.Transport
	port, requests, limit int
}

func connect(config *tls.Config) (*link, error) {
	conn, err := tls.Dial("tcp", "127.0.0.1:"+settings["port"], config)
	if err != nil {
		return nil, err
	}
	made := &link{port: conn.LocalAddr().(*net.TCPAddr).Port}
	var place int
	counted.change(func() { place = counted.Connections; counted.Connections++ })
	if place > 0 {
		made.limit = 10 + place*7%30
	}
	var taken atomic.Bool
	made.Transport = &http.Transport{DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
		if taken.Swap(true) {
			return nil, errNotKept
		}
		return conn, nil
	}}
	return made, nil
}

// Fails if not this very body comes back.
func (l *link) post(body []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, "POST", "https://soak.test/", bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Host = fmt.Sprintf("r%d.c%d.go.soak.test", l.requests, l.port)
	l.requests++
	request.Close = l.requests == l.limit
	response, err := l.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	returned, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", response.StatusCode)
	}
	if !bytes.Equal(returned, body) {
		return fmt.Errorf("%d bytes came back as %d or others", len(body), len(returned))
	}
	return nil
}

func work(config *tls.Config) {
	var over *link
	for !stopped.Load() {
		place := counted.change(func() { counted.Requests++ })
		text := []byte(fmt.Sprintf("%d ", place))
		length := lengths[place%len(lengths)]
		body := bytes.Repeat(text, length/len(text)+1)[:length]
		began := time.Now()
		var err error
		if over != nil {
			err = over.post(body)
		}
		if over == nil || errors.Is(err, errNotKept) {
			if over, err = connect(config); err == nil {
				err = over.post(body)
			}
		}
		if took := float64(time.Since(began).Nanoseconds()) / 1e6; took > 0 {
			counted.change(func() {
				if took > counted.SlowestMs {
					counted.SlowestMs = took
				}
			})
		}
		if err != nil {
			counted.fail(err)
		}
		if over != nil && (err != nil || over.requests == over.limit) {
			over.CloseIdleConnections()
			over = nil
		}
		time.Sleep(time.Duration(number("pause_ms")) * time.Millisecond)
	}
}

func ask() *sync.WaitGroup {
	pem, err := os.ReadFile(settings["ca"])
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	config := &tls.Config{RootCAs: roots, ServerName: settings["name"]}
	var workers sync.WaitGroup
	for index := 0; index < number("connections"); index++ {
		workers.Add(1)
		go func() {
			defer workers.Done()
			work(config)
		}()
	}
	return &workers
}

func main() {
	for _, word := range os.Args[2:] {
		name, value, _ := strings.Cut(word, "=")
		settings[name] = value
	}
	workers := &sync.WaitGroup{}
	if os.Args[1] == "server" {
		serve()
	} else {
		workers = ask()
	}
	io.Copy(io.Discard, os.Stdin)
	stopped.Store(true)
	workers.Wait()
	counted.say()
}
