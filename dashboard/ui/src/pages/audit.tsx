export function AuditPage(_: { id?: string }) { return <h1>Audit</h1>; }
