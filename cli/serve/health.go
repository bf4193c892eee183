package serve

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/millrace/millrace/engine"
)

// answerReady tells whether the broker can serve clients: 200, or 503 with the reasons, a line
// each. With ?verbose, or to who accepts application/json, it answers as JSON:
//
//	{"ready":false,"reasons":[{"what":"log directory","state":"stalled","dir":"/data","operation":"sync",
//	 "file":"/data/topics/…/00000000000000000000.log","seconds":12.3,"reason":"…"}]}
func answerReady(w http.ResponseWriter, r *http.Request, trouble error) {
	status := http.StatusOK
	if trouble != nil {
		status = http.StatusServiceUnavailable
	}
	w.Header().Set("Cache-Control", "no-store")
	if !r.URL.Query().Has("verbose") && !strings.Contains(r.Header.Get("Accept"), "application/json") {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(status)
		if trouble == nil {
			fmt.Fprintln(w, "ok")
		} else {
			fmt.Fprintln(w, trouble)
		}
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(struct {
		Ready   bool             `json:"ready"`
		Reasons []engine.Trouble `json:"reasons"`
	}{trouble == nil, reasons(trouble)}) // an error here is the client's connection
}

func reasons(trouble error) []engine.Trouble {
	var unhealthy *engine.Unhealthy
	switch {
	case trouble == nil:
		return []engine.Trouble{}
	case errors.As(trouble, &unhealthy):
		return unhealthy.Troubles
	}
	return []engine.Trouble{{What: "broker", State: "not serving", Reason: trouble.Error()}}
}
