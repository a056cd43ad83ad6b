package desk

import "muster"

// Consent is what people at a device want, where the server asks them before it has the device
// install.
type Consent struct {
	Action    int32 // newest that they want; 0 for none
	Auto      bool  // they want all that is offered
	Initiator string
	Remark    string
	Since     muster.Micros // of Auto
}
