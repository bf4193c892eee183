package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := fill(ctx, os.Args[1], len(os.Args) > 2); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
