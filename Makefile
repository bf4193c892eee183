# millrace: "make run" and "make test" need Go and nothing else; "make help" lists the rest.

GO       ?= go
VERSION  ?= 0.1.0-dev
DATA     ?= ./data
LISTEN   ?= 127.0.0.1:9092
FUZZTIME ?= 10s
ARGS     ?=
ROOMS    := cli engine replication segment server

# The race detector needs a C compiler; without one the tests run without it and say so.
RACE := $(shell [ "$$($(GO) env CGO_ENABLED)" = 1 ] && command -v $$($(GO) env CC) >/dev/null 2>&1 && echo -race)

.PHONY: help build run cluster test lint interop segments stall chaos bench bench-cluster fuzz clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-13s %s\n", $$1, $$2}'

build: ## build bin/millrace
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/millrace ./cli/millrace

run: build ## start a durable broker on 127.0.0.1:9092 with its data in ./data (LISTEN=, DATA=, ARGS= change that)
	@exec bin/millrace serve --data $(DATA) --listen $(LISTEN) $(ARGS)

cluster: build ## three nodes in one cluster on 127.0.0.1:9092 to 9094, with their data in ./data/n1 to n3, until Ctrl-C (DATA=, ARGS="-port 19092 -peers 19192")
	@$(GO) run ./testdata/cluster -millrace bin/millrace -data $(DATA) $(ARGS)

test: lint ## everything quick: formatting, vet, staticcheck, all tests with the race detector
	@[ -n "$(RACE)" ] || echo "no C compiler: the race detector is left out"
	$(GO) test $(RACE) -timeout 20m ./... ./testdata/bench

lint: ## gofmt, go vet, staticcheck
	@unformatted=$$(gofmt -l $(ROOMS) testdata); [ -z "$$unformatted" ] || { echo "gofmt would change:"; echo "$$unformatted"; exit 1; }
	$(GO) vet ./... ./testdata/bench ./testdata/cluster ./testdata/nodes ./testdata/stall ./testdata/chaos
	$(GO) tool staticcheck ./... ./testdata/bench ./testdata/cluster ./testdata/nodes ./testdata/stall ./testdata/chaos

interop: build ## real clients of other makers against bin/millrace (INTEROP_NODES=3: against a cluster, with three replicas of everything)
	testdata/interop/run.sh bin/millrace

segments: build ## "segment dump" and Kafka's own dump tool agree on files that both brokers wrote, line by line; needs a JDK and Maven (ARGS="-libs DIR" takes jars that are there)
	cd testdata/interop && $(GO) run ./segments -millrace ../../bin/millrace -pom ../bench/pom.xml $(ARGS)

stall: build ## a frozen file system under load, for ARGS="-for 60s"; needs root on Linux, mkfs.ext4, fsfreeze and loop devices
	$(GO) run ./testdata/stall -millrace bin/millrace $(ARGS)

chaos: build ## three brokers under load, killed, paused, restarted, and every acknowledged record looked for; ARGS="-all" adds cut networks and bad disks, for root on Linux
	$(GO) run ./testdata/chaos -millrace bin/millrace $(ARGS)

bench: build ## millrace and Kafka, with and without fsync, in one table; needs a JDK and Maven (ARGS="-rounds 5 -only sync")
	$(GO) run ./testdata/bench -millrace bin/millrace $(ARGS)

bench-cluster: build ## the same with three durable nodes of millrace beside three of Kafka: three replicas, min.insync.replicas 2, acks=all
	$(GO) run ./testdata/bench -millrace bin/millrace -nodes 3 $(ARGS)

fuzz: ## every fuzz target for FUZZTIME (10s each)
	@set -e; for file in $$(grep -rlE '^func Fuzz' --include='*_test.go' $(ROOMS)); do \
	  for target in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' $$file); do \
	    echo "$$target in ./$$(dirname $$file)"; \
	    $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) ./$$(dirname $$file); \
	  done; \
	done

clean: ## remove what was built (not ./data)
	rm -rf bin .cache
