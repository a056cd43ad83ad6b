// Package desk is where devices ask for firmware and say what became of it, whatever
// door they come in by: MQTT, hawkBit's DDI, ThingsBoard's topics.
//
// It owns the answer to "what is this device to do now", the groups in which reports are
// committed, and that a device knows of an action's end. The server wires it to the doors;
// firmware/director decides, and the control store keeps.
//
// It never decides who gets a release, and speaks no protocol.
package desk
