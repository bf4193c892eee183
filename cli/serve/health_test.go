package serve

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/millrace/millrace/engine"
)

func TestReadySaysWhatIsWrong(t *testing.T) {
	stalled := &engine.Unhealthy{Troubles: []engine.Trouble{{
		What: "log directory", State: "stalled", Dir: "/data", Op: "sync", File: "/data/topics/t/0.log", Seconds: 12.5,
		Reason: "sync /data/topics/t/0.log has not come back for 12 s",
	}}}
	for _, tt := range []struct {
		name    string
		trouble error
		want    []string
	}{
		{"well", nil, []string{`"ready":true`, `"reasons":[]`}},
		{"starting", errors.New("starting or stopping"), []string{`"ready":false`, "starting or stopping"}},
		{"stalled", stalled, []string{`"ready":false`, `"state":"stalled"`, `"operation":"sync"`, `"file":"/data/topics/t/0.log"`, `"seconds":12.5`}},
	} {
		for _, how := range []string{"text", "verbose", "accept"} {
			r := httptest.NewRequest(http.MethodGet, "/readyz", nil)
			switch how {
			case "verbose":
				r = httptest.NewRequest(http.MethodGet, "/readyz?verbose", nil)
			case "accept":
				r.Header.Set("Accept", "application/json")
			}
			w := httptest.NewRecorder()
			answerReady(w, r, tt.trouble)
			if ready := tt.trouble == nil; (w.Code == http.StatusOK) != ready {
				t.Errorf("%s, %s: status %d", tt.name, how, w.Code)
			}
			body := w.Body.String()
			if how == "text" {
				if want := "ok"; tt.trouble != nil && !strings.Contains(body, tt.trouble.Error()) || tt.trouble == nil && !strings.Contains(body, want) {
					t.Errorf("%s: %q", tt.name, body)
				}
				continue
			}
			if !json.Valid(w.Body.Bytes()) {
				t.Errorf("%s: not JSON: %s", tt.name, body)
			}
			for _, want := range tt.want {
				if !strings.Contains(body, want) {
					t.Errorf("%s, %s: %s lacks %s", tt.name, how, body, want)
				}
			}
		}
	}
}
