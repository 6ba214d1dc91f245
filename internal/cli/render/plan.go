package render

import (
	"fmt"
	"io"
	"strings"
	"time"

	"bulkjob.dev/operator/api/v1alpha1"
)

// Planned is a dry run that has ended.
type Planned struct {
	// Name is what was looked at: a job or a file.
	Name string
	// Object and Connector that it would be loaded to.
	Object, Connector string
	// Verdict is the sentence that sums it up.
	Verdict string
	// Rejected is true if the load would be refused, or rows would fail.
	Rejected bool
	Plan     *v1alpha1.Plan
}

// Text writes a plan for a terminal.
func (p *Planned) Text(out io.Writer) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%s\n", Plain(p.Verdict))
	for _, fact := range p.facts() {
		fmt.Fprintf(&text, "%-10s %s\n", fact[0], Plain(fact[1]))
	}
	for _, f := range p.Plan.Findings {
		fmt.Fprintf(&text, "\n%s  %s\n  %s\n", f.Severity, Plain(f.Reason), Plain(f.Message))
	}
	for _, list := range p.lists() {
		fmt.Fprintf(&text, "\n%s:\n", list.title)
		for _, item := range list.items {
			fmt.Fprintf(&text, "- %s\n", Plain(item))
		}
	}
	_, err := io.WriteString(out, text.String())
	return written(err)
}

// Markdown writes a plan for a comment on a pull request. Nothing in it is taken for markup.
func (p *Planned) Markdown(out io.Writer) error {
	var text strings.Builder
	mark := "✅"
	if p.Rejected {
		mark = "❌"
	}
	fmt.Fprintf(&text, "### %s Dry run: %s → %s at %s\n\n%s\n\n", mark, Escaped(p.Name), Escaped(p.Object), Escaped(p.Connector), Escaped(p.Verdict))
	text.WriteString("| | |\n|---|---|\n")
	for _, fact := range p.facts() {
		fmt.Fprintf(&text, "| %s | %s |\n", fact[0], Escaped(fact[1]))
	}
	if len(p.Plan.Findings) > 0 {
		text.WriteString("\n| severity | finding | |\n|---|---|---|\n")
	}
	for _, f := range p.Plan.Findings {
		fmt.Fprintf(&text, "| %s | %s | %s |\n", f.Severity, Escaped(f.Reason), Escaped(f.Message))
	}
	for _, list := range p.lists() {
		fmt.Fprintf(&text, "\n<details><summary>%s (%d)</summary>\n\n", list.title, len(list.items))
		for _, item := range list.items {
			fmt.Fprintf(&text, "- %s\n", Escaped(item))
		}
		text.WriteString("\n</details>\n")
	}
	text.WriteString("\nNothing was sent.\n")
	_, err := io.WriteString(out, text.String())
	return written(err)
}

func (p *Planned) facts() [][2]string {
	var facts [][2]string
	add := func(name, value string) { facts = append(facts, [2]string{name, value}) }
	if rows := p.Plan.Rows; rows != nil {
		add("rows", Count(*rows))
	}
	if parts := p.Plan.Parts; parts != nil {
		add("parts", Count(int64(*parts)))
	}
	if columns := p.Plan.Columns; columns != nil {
		add("columns", Count(int64(*columns)))
	}
	if source := p.Plan.Source; source != nil {
		if source.Bytes != nil {
			add("bytes", Count(*source.Bytes))
		}
		if source.SHA256 != "" {
			add("sha256", source.SHA256)
		}
	}
	if seconds := p.Plan.EstimatedSeconds; seconds != nil {
		add("takes some", Duration(time.Duration(*seconds)*time.Second))
	}
	if p.Plan.Receipt != "" {
		add("receipt", p.Plan.Receipt)
	}
	return facts
}

type list struct {
	title string
	items []string
}

func (p *Planned) lists() []list {
	var all []list
	for _, l := range []list{{"Checked", p.Plan.Checked}, {"Not checked", p.Plan.NotChecked}} {
		if len(l.items) > 0 {
			all = append(all, l)
		}
	}
	return all
}

// markup are the characters that mean something in Markdown or in the HTML within it.
const markup = "\\`*_{}[]()<>+!|~&$"

// apart is a comment, which separates what would be a link, a mention, an issue's number or an emoji if it stood together.
const apart = "<!-- -->"

// Escaped is a text that Markdown shows as it stands: without links, mentions and tags.
func Escaped(text string) string {
	var out strings.Builder
	runes := []rune(Plain(text))
	for i, c := range runes {
		last := i+1 == len(runes) || runes[i+1] == ' '
		switch {
		case strings.ContainsRune(markup, c):
			out.WriteRune('\\')
			out.WriteRune(c)
		case strings.ContainsRune("@#:", c) && !last, c == 'w' && !last && runes[i+1] == 'w':
			out.WriteString(string(c) + apart)
		default:
			out.WriteRune(c)
		}
	}
	return out.String()
}

func written(err error) error {
	if err != nil {
		return fmt.Errorf("cannot write: %w", err)
	}
	return nil
}
