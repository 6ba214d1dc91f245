package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// An editor sets template actions into an object. YAML has no place for them, so marks stand for them until it is text. After
// the first error it does nothing any more.
type editor struct {
	object object
	marks  []string
	err    error
}

var (
	lineMark   = regexp.MustCompile(`(?m)^( *)(?:- )?mark-(\d+)-(?:: "")?$`)
	inlineMark = regexp.MustCompile(`mark-(\d+)-`)
)

func (e *editor) mark(text string) string {
	e.marks = append(e.marks, text)
	return fmt.Sprintf("mark-%d-", len(e.marks)-1)
}

func (e *editor) failf(format string, args ...any) {
	if e.err == nil {
		e.err = fmt.Errorf(format, args...)
	}
}

// at is the map at a path such as spec.template.metadata, a number being an index of a list.
func (e *editor) at(path string) object {
	var here any = e.object
	for step := range strings.SplitSeq(path, ".") {
		switch parent := here.(type) {
		case object:
			here = parent[step]
		case []any:
			if i, err := strconv.Atoi(step); err == nil && i < len(parent) {
				here = parent[i]
			}
		}
	}
	found, ok := here.(object)
	if !ok {
		e.failf("cannot find a map at %s", path)
		return object{}
	}
	return found
}

// set replaces the value of a key that is there by an action.
func (e *editor) set(path, key, action string) {
	here := e.at(path)
	if _, ok := here[key]; !ok {
		e.failf("cannot find %s.%s", path, key)
	}
	here[key] = e.mark(action)
}

// suffix puts an action at the end of a value that is there.
func (e *editor) suffix(path, key, action string) {
	here := e.at(path)
	value, ok := here[key].(string)
	if !ok {
		e.failf("cannot find %s.%s", path, key)
	}
	here[key] = value + e.mark(action)
}

// insert puts lines into a map, where their own indentation is counted from its keys.
func (e *editor) insert(path string, lines ...string) {
	e.at(path)[e.mark(strings.Join(lines, "\n"))] = ""
}

// only keeps keys that are there under a condition.
func (e *editor) only(path, condition string, keys ...string) {
	here := e.at(path)
	kept := object{}
	for _, key := range keys {
		value, ok := here[key]
		if !ok {
			e.failf("cannot find %s.%s", path, key)
		}
		kept[key] = value
		delete(here, key)
	}
	text, err := yaml.Marshal(kept)
	if err != nil {
		e.failf("cannot write %s: %w", path, err)
	}
	e.insert(path, "{{- if "+condition+" }}", escape(strings.TrimRight(string(text), "\n")), "{{- end }}")
}

// list changes a list that is there.
func (e *editor) list(path, key string, change func([]any) []any) {
	here := e.at(path)
	list, ok := here[key].([]any)
	if !ok {
		e.failf("cannot find a list at %s.%s", path, key)
		return
	}
	here[key] = change(list)
}

// around puts lines before and after those items of a list that picks tells, of which there must be some, side by side.
func (e *editor) around(list []any, picks func(item any) bool, before, after string) []any {
	first := slices.IndexFunc(list, picks)
	if first < 0 {
		e.failf("cannot find the item that %q is about", before)
		return list
	}
	last := first
	for last+1 < len(list) && picks(list[last+1]) {
		last++
	}
	list = slices.Insert(slices.Clone(list), last+1, any(e.mark(after)))
	return slices.Insert(list, first, any(e.mark(before)))
}

// text is the object as a template.
func (e *editor) text() (string, error) {
	raw, err := yaml.Marshal(e.object)
	if err = errors.Join(e.err, err); err != nil {
		return "", err
	}
	text := lineMark.ReplaceAllStringFunc(escape(string(raw)), func(line string) string {
		match := lineMark.FindStringSubmatch(line)
		indent := "\n" + match[1]
		return match[1] + strings.ReplaceAll(e.marked(match[2]), "\n", indent)
	})
	return inlineMark.ReplaceAllStringFunc(text, func(mark string) string {
		return e.marked(inlineMark.FindStringSubmatch(mark)[1])
	}), nil
}

func (e *editor) marked(number string) string {
	i, err := strconv.Atoi(number)
	if err != nil || i >= len(e.marks) {
		panic("a mark that nobody made: " + number)
	}
	return e.marks[i]
}

// escape keeps braces of the bases, as alerts have them, from being taken for actions.
func escape(text string) string { return strings.ReplaceAll(text, "{{", `{{ "{{" }}`) }
