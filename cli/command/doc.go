// Package command is millrace's command line: one file per command, each a thin layer over a Kafka client or over package serve.
//
// Every command writes its result to standard output, everything else (progress, hints, errors) to standard error, and ends
// with one of the exit codes in errors.go. Flags may stand before or after the arguments (args.go).
package command
