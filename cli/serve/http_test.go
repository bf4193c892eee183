package serve

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestHealth(t *testing.T) {
	var trouble error
	h := httpHandler(func() error { return trouble }, newMetrics("test").handler())
	get := func(path string) int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code
	}
	for _, path := range []string{"/livez", "/readyz", "/metrics", "/debug/pprof/"} {
		if code := get(path); code != http.StatusOK {
			t.Errorf("%s: %d", path, code)
		}
	}
	trouble = errors.New("the log directory is fenced")
	if code := get("/readyz"); code != http.StatusServiceUnavailable {
		t.Errorf("/readyz in trouble: %d", code)
	}
	if code := get("/livez"); code != http.StatusOK {
		t.Errorf("/livez in trouble: %d", code)
	}
	if code := get("/nothing"); code != http.StatusNotFound {
		t.Errorf("/nothing: %d", code)
	}
}
