// Package email sends mail over SMTP: one message to one address, plain text with an
// HTML alternative.
//
// The server makes a Mailer from --smtp and gives it to accounts, whose queue calls
// Send. It is the only importer of go-mail. It keeps no connection and no queue, never
// tries again (it says whether that would help), never logs, and puts neither a secret
// nor what a mail says into an error.
package email
