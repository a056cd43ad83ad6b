package chat

// Wording is wording.
var Wording = wording
