export function SystemPage(_: { id?: string }) { return <h1>System</h1>; }
