package server

import "muster/cache"

// buildCaches lists what is remembered, for /metrics and the System page.
func (s *Server) buildCaches() {
	s.caches = cache.NewBook(s.registry.SelectorFigures, s.topicFigures)
	s.metrics.MustRegister(s.caches)
}

// topicFigures are those of the broker's own cache of who subscribes to a topic.
func (s *Server) topicFigures() cache.Figures {
	topics, hits, misses := s.broker.TopicCache()
	return cache.Figures{Name: "topics", Hits: hits, Misses: misses, Entries: topics}
}
