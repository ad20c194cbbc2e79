// A client on Go's net/http; settings and output as in client.py. resume=1 gives it a session cache.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"strconv"
	"strings"
	"time"
)

type told struct {
	Client        string   `json:"client"`
	ConnectMs     float64  `json:"connect_ms"`
	HandshakeMs   float64  `json:"handshake_ms"`
	AfterMs       float64  `json:"after_ms"`
	BeforeHelloMs float64  `json:"before_hello_ms"`
	FirstByteMs   *float64 `json:"first_byte_ms"`
	Version       string   `json:"version"`
	Sni           string   `json:"sni"`
	Resumed       bool     `json:"resumed"`
	Exchanges     int      `json:"exchanges"`
	LocalPort     int      `json:"local_port"`
}

var settings = map[string]string{}

func number(name string, otherwise int) int {
	value, given := settings[name]
	if !given {
		return otherwise
	}
	parsed, err := strconv.Atoi(value)
	if err != nil {
		log.Fatalf("%s: %v", name, err)
	}
	return parsed
}

func ms(span time.Duration) float64 { return float64(span.Nanoseconds()) / 1e6 }

// Knows when it was first given bytes to send, which is the ClientHello, and when bytes last passed: just before they are
// sent, just after they came.
type timedConn struct {
	net.Conn
	first, last time.Time
}

func (c *timedConn) Write(bytes []byte) (int, error) {
	c.last = time.Now()
	if c.first.IsZero() {
		c.first = c.last
	}
	return c.Conn.Write(bytes)
}

func (c *timedConn) Read(bytes []byte) (int, error) {
	count, err := c.Conn.Read(bytes)
	c.last = time.Now()
	return count, err
}

var versions = map[uint16]string{tls.VersionTLS12: "1.2", tls.VersionTLS13: "1.3"}

func tlsConfig() *tls.Config {
	pem, err := os.ReadFile(settings["ca"])
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	config := &tls.Config{RootCAs: roots, ServerName: settings["sni"]}
	for number, name := range versions {
		if settings["version"] == name {
			config.MinVersion, config.MaxVersion = number, number
		}
	}
	if settings["resume"] == "1" {
		config.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	}
	return config
}

// One connection and its requests. The transport dials when the first request comes.
func connection(config *tls.Config) told {
	line := told{Client: "go", Sni: settings["sni"]}
	var conn *timedConn
	transport := &http.Transport{TLSClientConfig: config}
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		before := time.Now()
		plain, err := (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(settings["host"], settings["port"]))
		if err != nil {
			return nil, err
		}
		line.ConnectMs = ms(time.Since(before))
		line.LocalPort = plain.LocalAddr().(*net.TCPAddr).Port
		conn = &timedConn{Conn: plain}
		return conn, nil
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	for index := 0; index < number("requests", 1); index++ {
		if index > 0 {
			time.Sleep(time.Duration(number("gap_ms", 0)) * time.Millisecond)
		}
		var began, asked time.Time
		trace := &httptrace.ClientTrace{
			TLSHandshakeStart: func() { began = time.Now() },
			TLSHandshakeDone: func(state tls.ConnectionState, err error) {
				line.BeforeHelloMs, line.AfterMs = ms(conn.first.Sub(began)), ms(time.Since(conn.last))
				line.HandshakeMs = ms(conn.last.Sub(conn.first))
				line.Version, line.Resumed = versions[state.Version], state.DidResume
			},
			GotConn: func(httptrace.GotConnInfo) { asked = time.Now() },
			GotFirstResponseByte: func() {
				if line.FirstByteMs == nil {
					took := ms(time.Since(asked))
					line.FirstByteMs = &took
				}
			},
		}
		ctx := httptrace.WithClientTrace(context.Background(), trace)
		request, err := http.NewRequestWithContext(ctx, "GET", "https://"+settings["sni"]+"/", nil)
		if err != nil {
			log.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			log.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			log.Fatal(err)
		}
		response.Body.Close()
		line.Exchanges++
	}
	return line
}

func main() {
	for _, word := range os.Args[1:] {
		name, value, _ := strings.Cut(word, "=")
		settings[name] = value
	}
	config := tlsConfig()
	for index := 0; index < number("connections", 1); index++ {
		text, err := json.Marshal(connection(config))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(text))
	}
}
