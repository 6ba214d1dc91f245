package controllers

import "github.com/go-logr/logr"

// maxVerbosity is the highest at which nothing but ourselves and controller-runtime speaks. From 6 on, client-go logs what
// it sends and gets through the logger of its caller's context: URLs first, and from 8 on bodies, those of Secrets among them.
const maxVerbosity = 5

// Discreet bounds a logger's verbosity, whatever the administrator asks for, so that no Secret ends in the log.
func Discreet(logger logr.Logger) logr.Logger { return logger.WithSink(discreet{logger.GetSink()}) }

type discreet struct{ logr.LogSink }

// Enabled implements logr.LogSink.
func (d discreet) Enabled(level int) bool { return level <= maxVerbosity && d.LogSink.Enabled(level) }

// WithName implements logr.LogSink.
func (d discreet) WithName(name string) logr.LogSink { return discreet{d.LogSink.WithName(name)} }

// WithValues implements logr.LogSink.
func (d discreet) WithValues(keysAndValues ...any) logr.LogSink {
	return discreet{d.LogSink.WithValues(keysAndValues...)}
}

// WithCallDepth implements logr.CallDepthLogSink.
func (d discreet) WithCallDepth(depth int) logr.LogSink {
	if sink, ok := d.LogSink.(logr.CallDepthLogSink); ok {
		return discreet{sink.WithCallDepth(depth)}
	}
	return d
}
