// Looks names up by Go's own resolver and connects to what they have, as told: prints a JSON line a step.
//
//	go_lookup STEP...      as lookup.py
package main

import (
	"context"
	"encoding/json"
	"log"
	"net"
	"os"
	"strings"
	"time"
)

type told struct {
	Name   string  `json:"name,omitempty"`
	TookMs float64 `json:"took_ms"`
	Error  *string `json:"error"`
	Local  *string `json:"local,omitempty"`
	Remote *string `json:"remote,omitempty"`
}

var last string

func lookUp(name string, line *told) {
	resolver := net.Resolver{PreferGo: true}
	began := time.Now()
	addresses, err := resolver.LookupHost(context.Background(), name)
	line.Name, line.TookMs = name, float64(time.Since(began).Nanoseconds())/1e6
	if err != nil {
		text := err.Error()
		line.Error = &text
		return
	}
	last = addresses[0]
}

func connect(port string, line *told) {
	connection, err := net.Dial("tcp", net.JoinHostPort(last, port))
	if err != nil {
		log.Fatal(err)
	}
	local, remote := connection.LocalAddr().String(), connection.RemoteAddr().String()
	line.Local, line.Remote = &local, &remote
	connection.Close()
}

func main() {
	for _, step := range os.Args[1:] {
		words := strings.Split(step, ":")
		var line told
		switch words[0] {
		case "connect":
			lookUp(words[1], &line)
			connect(words[2], &line)
		case "again":
			connect(words[1], &line)
		default:
			lookUp(words[1], &line)
		}
		text, err := json.Marshal(line)
		if err != nil {
			log.Fatal(err)
		}
		os.Stdout.Write(append(text, '\n'))
	}
}
