export function TasksPage(_: { id?: string }) { return <h1>Tasks</h1>; }
