package wire

import "fmt"

// The versions of the protocol, as CONNECT names them.
const (
	version31 byte = 3 // MQIsdp
	version5  byte = 5
)

// The packet types (section 2.1.2): the upper half of a packet's first byte. CONNACK's
// is not Connack, which is the packet.
const (
	Connect byte = iota + 1
	ConnackType
	Publish
	Puback
	Pubrec
	Pubrel
	Pubcomp
	Subscribe
	Suback
	Unsubscribe
	Unsuback
	Pingreq
	Pingresp
	Disconnect
	Auth
)

// The reason codes (section 2.4). Those of 0x80 and more are failures.
const (
	CodeSuccess               byte = 0x00 // also: granted QoS 0, normal disconnection
	CodeGrantedQoS1           byte = 0x01
	CodeGrantedQoS2           byte = 0x02
	CodeDisconnectWithWill    byte = 0x04
	CodeNoMatchingSubscribers byte = 0x10
	CodeNoSubscription        byte = 0x11
	CodeContinueAuth          byte = 0x18
	CodeReAuth                byte = 0x19
	CodeUnspecified           byte = 0x80
	CodeMalformed             byte = 0x81
	CodeProtocolError         byte = 0x82
	CodeImplementation        byte = 0x83
	CodeBadVersion            byte = 0x84
	CodeBadClientID           byte = 0x85
	CodeBadPassword           byte = 0x86
	CodeNotAuthorized         byte = 0x87
	CodeUnavailable           byte = 0x88
	CodeServerBusy            byte = 0x89
	CodeBanned                byte = 0x8a
	CodeShuttingDown          byte = 0x8b
	CodeBadAuthMethod         byte = 0x8c
	CodeKeepAlive             byte = 0x8d
	CodeTakenOver             byte = 0x8e
	CodeBadFilter             byte = 0x8f
	CodeBadTopic              byte = 0x90
	CodeIDInUse               byte = 0x91
	CodeIDNotFound            byte = 0x92
	CodeReceiveMaximum        byte = 0x93
	CodeBadAlias              byte = 0x94
	CodeTooLarge              byte = 0x95
	CodeRate                  byte = 0x96
	CodeQuota                 byte = 0x97
	CodeAdministrative        byte = 0x98
	CodeBadPayload            byte = 0x99
	CodeNoRetain              byte = 0x9a
	CodeNoQoS                 byte = 0x9b
	CodeUseAnother            byte = 0x9c
	CodeServerMoved           byte = 0x9d
	CodeNoSharedSubs          byte = 0x9e
	CodeConnectionRate        byte = 0x9f
	CodeMaximumConnectTime    byte = 0xa0
	CodeNoSubIDs              byte = 0xa1
	CodeNoWildcards           byte = 0xa2
)

// Error is a packet that breaks the protocol. Code is the MQTT 5 reason code to
// answer with; Reason says in words which rule was broken, holds nothing of the
// packet, and may be sent to the client and logged.
type Error struct {
	Code   byte
	Reason string
}

func (e *Error) Error() string { return fmt.Sprintf("mqtt 0x%02x: %s", e.Code, e.Reason) }

// The limits of one packet. They bound what the codec allocates for it, which was
// measured to be up to 140 times the body. More is CodeQuota.
const (
	MaxFilters    = 1024 // in a SUBSCRIBE or UNSUBSCRIBE
	MaxProperties = 1024 // in one property block, each user property counted
)

func quota(reason string) *Error { return &Error{Code: CodeQuota, Reason: reason} }

func malformed(reason string) *Error { return &Error{Code: CodeMalformed, Reason: reason} }

func violation(reason string) *Error { return &Error{Code: CodeProtocolError, Reason: reason} }
