export function FirmwarePage(_: { id?: string }) { return <h1>Firmware</h1>; }
