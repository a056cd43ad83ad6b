export function ReleasePage(_: { id?: string }) { return <h1>Release</h1>; }
