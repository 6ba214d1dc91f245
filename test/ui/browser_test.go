package ui_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A browser is a Chromium without a window, driven through pipes by the DevTools protocol: JSON messages, each ended by a
// NUL (https://chromedevtools.github.io/devtools-protocol/). It ends with its pipes, so it can't outlive the test.
type browser struct {
	cmd *exec.Cmd

	mu      sync.Mutex
	to      *os.File
	last    int
	waiting map[int]chan message
	tabs    map[string]*tab // by session
	err     error           // why there are no more messages
}

type message struct {
	ID      int             `json:"id,omitempty"`
	Session string          `json:"sessionId,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  json.RawMessage `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

// chromium finds the program that hack/chromium.sh installs, or another of its kind.
func chromium() (string, error) {
	for _, name := range []string{
		os.Getenv("BULKJOB_CHROMIUM"), "chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chromium-headless-shell",
	} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("cannot find Chromium: hack/chromium.sh installs it where it may, and else says what to do")
}

// startBrowser starts one whose profile is new, in dir.
func startBrowser(dir string) (*browser, error) {
	path, err := chromium()
	if err != nil {
		return nil, err
	}
	commands, to, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("cannot make a pipe: %w", err)
	}
	defer commands.Close()
	from, answers, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("cannot make a pipe: %w", err)
	}
	defer answers.Close()
	args := []string{
		"--headless", "--remote-debugging-pipe", "--user-data-dir=" + filepath.Join(dir, "profile"), "--disable-gpu", "--disable-quic",
		"--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
		"--password-store=basic",
	}
	if os.Getuid() == 0 {
		args = append(args, "--no-sandbox") // Chromium runs as root in no other way
	}
	b := &browser{cmd: exec.Command(path, args...), to: to, waiting: map[int]chan message{}, tabs: map[string]*tab{}}
	b.cmd.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "TZ=UTC"}
	b.cmd.ExtraFiles = []*os.File{commands, answers} // it reads from 3 and writes to 4
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := b.cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start Chromium: %w", err)
	}
	go b.listen(from)
	return b, nil
}

// close ends the browser with all its processes.
func (b *browser) close() {
	_ = b.to.Close()
	_ = syscall.Kill(-b.cmd.Process.Pid, syscall.SIGKILL)
	_ = b.cmd.Wait()
}

func (b *browser) listen(from *os.File) {
	defer from.Close()
	lines := bufio.NewReader(from)
	for {
		text, err := lines.ReadBytes(0)
		var m message
		if err == nil {
			err = json.Unmarshal(text[:len(text)-1], &m)
		}
		b.mu.Lock()
		if err != nil {
			b.err = fmt.Errorf("cannot hear of Chromium any more: %w", err)
			for _, waiting := range b.waiting {
				close(waiting)
			}
			b.waiting = nil
			b.mu.Unlock()
			return
		}
		waiting, tab := b.waiting[m.ID], b.tabs[m.Session]
		delete(b.waiting, m.ID)
		b.mu.Unlock()
		switch {
		case waiting != nil:
			waiting <- m
		case m.ID == 0 && tab != nil:
			tab.hear(m)
		}
	}
}

// send gives a command; its answer comes through the channel, which is closed if none will come.
func (b *browser) send(session, method string, params any) (<-chan message, error) {
	text, err := json.Marshal(params)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return nil, b.err
	}
	b.last++
	line, err := json.Marshal(message{ID: b.last, Session: session, Method: method, Params: text})
	if err != nil {
		return nil, err
	}
	answer := make(chan message, 1)
	b.waiting[b.last] = answer
	if _, err := b.to.Write(append(line, 0)); err != nil {
		return nil, fmt.Errorf("cannot speak to Chromium: %w", err)
	}
	return answer, nil
}

// call gives a command and waits for its result.
func (b *browser) call(ctx context.Context, session, method string, params, result any) error {
	answer, err := b.send(session, method, params)
	if err != nil {
		return err
	}
	select {
	case m, ok := <-answer:
		switch {
		case !ok:
			return fmt.Errorf("cannot have %s done: Chromium has ended", method)
		case m.Error != nil:
			return fmt.Errorf("cannot have %s done: %s", method, m.Error.Message)
		case result == nil:
			return nil
		}
		return json.Unmarshal(m.Result, result)
	case <-ctx.Done():
		return fmt.Errorf("cannot wait for %s any longer: %w", method, ctx.Err())
	}
}

type object map[string]any

// A tab is one page of a browser, in a context of its own: it shares no password and nothing else with others.
type tab struct {
	t        *testing.T
	browser  *browser
	session  string
	password string

	mu         sync.Mutex
	loads      int      // pages loaded
	asked      int      // times that the browser asked for a password
	complaints []string // of the page's own scripts, and of the browser about what the page tried
}

// open makes a tab that answers questions for a password.
func open(t *testing.T, b *browser, password string) *tab {
	t.Helper()
	var own struct {
		Context string `json:"browserContextId"`
		Target  string `json:"targetId"`
		Session string `json:"sessionId"`
	}
	for _, step := range []struct {
		method string
		params func() object
	}{
		{"Target.createBrowserContext", func() object { return object{} }},
		{"Target.createTarget", func() object { return object{"url": "about:blank", "browserContextId": own.Context} }},
		{"Target.attachToTarget", func() object { return object{"targetId": own.Target, "flatten": true} }},
	} {
		if err := b.call(t.Context(), "", step.method, step.params(), &own); err != nil {
			t.Fatal(err)
		}
	}
	page := &tab{t: t, browser: b, session: own.Session, password: password}
	b.mu.Lock()
	b.tabs[own.Session] = page
	b.mu.Unlock()
	t.Cleanup(func() {
		_, _ = b.send("", "Target.disposeBrowserContext", object{"browserContextId": own.Context})
	})
	for _, domain := range []string{"Page", "Runtime", "Log"} {
		page.do(domain+".enable", nil)
	}
	page.do("Fetch.enable", object{"handleAuthRequests": true})
	return page
}

// hear notes what happens in the tab. It is called by the one who listens, and so must not wait for answers.
func (p *tab) hear(m message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var request struct {
		ID string `json:"requestId"`
	}
	switch m.Method {
	case "Page.loadEventFired":
		p.loads++
	case "Runtime.exceptionThrown", "Log.entryAdded":
		p.complaints = append(p.complaints, string(m.Params))
	case "Fetch.requestPaused":
		if json.Unmarshal(m.Params, &request) == nil {
			_, _ = p.browser.send(p.session, "Fetch.continueRequest", object{"requestId": request.ID})
		}
	case "Fetch.authRequired":
		p.asked++
		response := object{"response": "ProvideCredentials", "username": "anyone", "password": p.password}
		if p.password == "" || p.asked > 3 {
			response = object{"response": "CancelAuth"}
		}
		if json.Unmarshal(m.Params, &request) == nil {
			_, _ = p.browser.send(p.session, "Fetch.continueWithAuth", object{"requestId": request.ID, "authChallengeResponse": response})
		}
	}
}

// noted tells what hear has noted.
func (p *tab) noted() (loads, asked int, complaints []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.loads, p.asked, append([]string(nil), p.complaints...)
}

func (p *tab) call(method string, params object, result any) error {
	ctx, cancel := context.WithTimeout(p.t.Context(), 30*time.Second)
	defer cancel()
	if params == nil {
		params = object{}
	}
	return p.browser.call(ctx, p.session, method, params, result)
}

func (p *tab) do(method string, params object) {
	p.t.Helper()
	if err := p.call(method, params, nil); err != nil {
		p.t.Fatal(err)
	}
}

// visit loads a page and waits until it is there.
func (p *tab) visit(url string) {
	p.t.Helper()
	before, _, _ := p.noted()
	p.do("Page.navigate", object{"url": url})
	p.until("the page is there", func() bool {
		loads, _, _ := p.noted()
		return loads > before
	})
}

// try evaluates an expression in the page.
func (p *tab) try(expression string, to any) error {
	var answer struct {
		Result struct {
			Value json.RawMessage `json:"value"`
		} `json:"result"`
		Exception *struct {
			Text      string `json:"text"`
			Exception struct {
				Description string `json:"description"`
			} `json:"exception"`
		} `json:"exceptionDetails"`
	}
	if err := p.call("Runtime.evaluate", object{"expression": expression, "returnByValue": true, "awaitPromise": true}, &answer); err != nil {
		return err
	}
	if e := answer.Exception; e != nil {
		return fmt.Errorf("cannot evaluate %s: %s", expression, cmp.Or(e.Exception.Description, e.Text))
	}
	if len(answer.Result.Value) == 0 {
		return nil // undefined
	}
	return json.Unmarshal(answer.Result.Value, to)
}

// eval is try, for expressions that must succeed.
func eval[T any](p *tab, expression string) (value T) {
	p.t.Helper()
	if err := p.try(expression, &value); err != nil {
		p.t.Fatal(err)
	}
	return value
}

// text is what can be read in the page.
func (p *tab) text() string {
	p.t.Helper()
	return eval[string](p, "document.body.innerText")
}

func (p *tab) until(what string, holds func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(45 * time.Second); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			_, _, complaints := p.noted()
			p.t.Fatalf("waited too long until %s; the browser says %v", what, complaints)
		}
	}
}

// size sets the page's size in CSS pixels; a phone also pans and zooms as phones do.
func (p *tab) size(width, height, scale int, phone bool) {
	p.t.Helper()
	p.do("Emulation.setDeviceMetricsOverride", object{"width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone})
}

func (p *tab) dark(dark bool) {
	p.t.Helper()
	scheme := map[bool]string{true: "dark", false: "light"}[dark]
	p.do("Emulation.setEmulatedMedia", object{"features": []object{{"name": "prefers-color-scheme", "value": scheme}}})
}

// picture writes what is seen to a PNG file.
func (p *tab) picture(path string) {
	p.t.Helper()
	var shot struct {
		Data string `json:"data"`
	}
	if err := p.call("Page.captureScreenshot", object{"format": "png"}, &shot); err != nil {
		p.t.Fatal(err)
	}
	image, err := base64.StdEncoding.DecodeString(shot.Data)
	if err == nil {
		err = os.WriteFile(path, image, 0o644)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}
