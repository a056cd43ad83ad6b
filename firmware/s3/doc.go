// Package s3 keeps images in an object store that speaks S3, by their SHA-256, for fleets whose
// images are not to lie on the disk of one machine.
//
// It owns how an image is named there, that no image comes there whose digest is another, and the
// deadlines of every call. The catalogue of firmware calls it, after an upload is whole.
//
// It keeps no image on the disk or, but for the part that is being sent, in memory, makes no
// bucket, and logs nothing: its errors name no key.
package s3
