package command

import "muster"

// State is where a command stands.
type State uint8

// The states of a command. Succeeded and those after it are final.
const (
	Queued    State = iota // stored, on no connection
	Sent                   // on a connection, not acknowledged
	Delivered              // the device's MQTT client has it
	Accepted               // the device says it will do it
	Progress               // the device says how far it is
	Succeeded              // the device says it is done
	Failed                 // the device says it could not
	Expired                // its time was over before it was finished
	Cancelled              // somebody called it off
	states    = iota
)

var stateNames = [states]string{
	"queued", "sent", "delivered", "accepted", "progress", "succeeded", "failed", "expired", "cancelled",
}

// String returns the state's stable name.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "unknown"
}

// Final says whether nothing comes after s.
func (s State) Final() bool { return s >= Succeeded }

// ParseState returns the state of that name, or an Invalid error.
func ParseState(name string) (State, error) {
	for i, n := range stateNames {
		if n == name {
			return State(i), nil
		}
	}
	return 0, muster.Errorf(muster.Invalid, "%q is no state of a command", name)
}

// event is what can happen to a command.
type event uint8

const (
	evSend     event = iota // handed to a connection
	evLost                  // that connection ended first
	evAck                   // the device's client acknowledged it, or QoS 0 knows no better
	evAccept                // reports of the device from here
	evProgress              //
	evOK                    //
	evError                 // to here
	evExpire                // expires_at has come
	evCancel                // called off
	events     = iota
)

// report says whether e is a report of the device.
func (e event) report() bool { return e >= evAccept && e <= evError }

// verdict is a cell of the table: the state after the event, or why there is none.
type verdict struct {
	to      State
	refused string
}

func to(s State) verdict        { return verdict{to: s} }
func refuse(why string) verdict { return verdict{refused: why} }
func isFinished(s State) string { return "the command has " + s.String() + " already" }

const wasCancelled = "the command was cancelled already"

func next(s State, e event) verdict { return transitions[s][e] }

// transitions is the whole table. A state that follows itself changes nothing but the
// progress: what a device sends again after a lost acknowledgement is no error, and
// neither is a report that overtook another.
var transitions = [states][events]verdict{
	Queued: {
		evSend: to(Sent), evLost: refuse("it was not sent"), evAck: refuse("it was not sent"),
		// A report without a delivery: the server stopped before it had noted the delivery.
		evAccept: to(Accepted), evProgress: to(Progress), evOK: to(Succeeded), evError: to(Failed),
		evExpire: to(Expired), evCancel: to(Cancelled),
	},
	Sent: {
		evSend: refuse("it is on its way"), evLost: to(Queued), evAck: to(Delivered),
		evAccept: to(Accepted), evProgress: to(Progress), evOK: to(Succeeded), evError: to(Failed),
		evExpire: to(Expired), evCancel: to(Cancelled),
	},
	Delivered: {
		evSend: refuse("it was delivered"), evLost: to(Delivered), evAck: to(Delivered),
		evAccept: to(Accepted), evProgress: to(Progress), evOK: to(Succeeded), evError: to(Failed),
		evExpire: to(Expired), evCancel: to(Cancelled),
	},
	Accepted: {
		evSend: refuse("it was delivered"), evLost: to(Accepted), evAck: to(Accepted),
		evAccept: to(Accepted), evProgress: to(Progress), evOK: to(Succeeded), evError: to(Failed),
		evExpire: to(Expired), evCancel: to(Cancelled),
	},
	Progress: {
		evSend: refuse("it was delivered"), evLost: to(Progress), evAck: to(Progress),
		evAccept: to(Progress), evProgress: to(Progress), evOK: to(Succeeded), evError: to(Failed),
		evExpire: to(Expired), evCancel: to(Cancelled),
	},
	Succeeded: {
		evSend: refuse(isFinished(Succeeded)), evLost: to(Succeeded), evAck: to(Succeeded),
		evAccept: to(Succeeded), evProgress: to(Succeeded), evOK: to(Succeeded), evError: refuse(isFinished(Succeeded)),
		evExpire: refuse(isFinished(Succeeded)), evCancel: refuse(isFinished(Succeeded)),
	},
	Failed: {
		evSend: refuse(isFinished(Failed)), evLost: to(Failed), evAck: to(Failed),
		evAccept: to(Failed), evProgress: to(Failed), evOK: refuse(isFinished(Failed)), evError: to(Failed),
		evExpire: refuse(isFinished(Failed)), evCancel: refuse(isFinished(Failed)),
	},
	Expired: {
		evSend: refuse(isFinished(Expired)), evLost: to(Expired), evAck: to(Expired),
		evAccept: refuse(isFinished(Expired)), evProgress: refuse(isFinished(Expired)),
		evOK: refuse(isFinished(Expired)), evError: refuse(isFinished(Expired)),
		evExpire: to(Expired), evCancel: refuse(isFinished(Expired)),
	},
	Cancelled: {
		evSend: refuse(wasCancelled), evLost: to(Cancelled), evAck: to(Cancelled),
		evAccept: refuse(wasCancelled), evProgress: refuse(wasCancelled),
		evOK: refuse(wasCancelled), evError: refuse(wasCancelled),
		evExpire: refuse(wasCancelled), evCancel: to(Cancelled),
	},
}
