package accounts

// Stats are figures for the System page and /metrics.
type Stats struct {
	Users, Admins, Sessions, Keys, ServiceAccounts int
	MailQueued                                     int
	MailSent, MailFailed, MailDropped              uint64 // failed: given up; dropped: the queue was full
	Hashes                                         uint64 // passwords hashed since the start
	Waits                                          uint64 // attempts refused because there were too many
}

// Stats counts what there is now.
func (a *Accounts) Stats() Stats {
	s := Stats{
		MailQueued: a.post.queued(), MailSent: a.post.sent.Load(), MailFailed: a.post.failed.Load(),
		MailDropped: a.post.dropped.Load(), Hashes: a.hasher.hashes.Load(),
	}
	for _, l := range []*limits{a.tries, a.everywhere, a.codes, a.mails, a.networks} {
		s.Waits += l.refused()
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	s.Users, s.Sessions, s.Keys, s.ServiceAccounts = len(a.users), len(a.sessions), len(a.keys), len(a.services)
	for _, r := range a.users {
		if r.Role == Admin && !r.Disabled {
			s.Admins++
		}
	}
	return s
}
