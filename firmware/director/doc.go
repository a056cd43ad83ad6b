// Package director takes rollouts through their devices: it offers releases, hears what
// devices report, notices who is silent, and goes on to the next phase or stops.
//
// It owns when each of that is done, and by which process: whoever has a rollout's lease.
// What is decided is package rollout's, called inside the store's transactions with the rows
// locked; what is in memory here can be lost at any moment. The doors (MQTT, DDI) give it
// reports, and send the offers that it tells them of after they are committed.
//
// It never speaks to a device, reads no image, and keeps no state of a rollout.
package director
