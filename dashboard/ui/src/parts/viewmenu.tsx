// The lists that one has saved: each is a link, for the address holds all of it.

import { parseColumns } from "../lib/columns";
import { useForm } from "../lib/form";
import { useList } from "../lib/list";
import { listPath, route, sortOf, type Sort } from "../lib/route";
import { createView, deleteView, listViews, putView, type SavedView, type ViewParts } from "../lib/schema.gen";
import { me } from "../lib/session";
import { Fault } from "./fault";
import { Field, Submit } from "./field";
import { Menu } from "./menu";
import { Sure } from "./sure";

const T = {
  word: "Views",
  label: "Saved views",
  none: "No view is saved yet. A view is this list's query, columns and order under a name.",
  noUser: "Saved views are a user's: an API key has none. The address of this page holds the query, the columns and the order.",
  name: "Name",
  save: "Save this list",
  replace: "Save over",
  replaceSure: "Replace it?",
  drop: "Delete",
  dropSure: "Delete it?",
};

/** The address of a saved view. */
export function viewPath(v: SavedView): string {
  return listPath(v.q ?? "", sortOf(v.sort ?? ""), "", (v.columns ?? []).join(","));
}

/** What the address asks for: that is what is saved, whatever the list still shows. */
interface Asked {
  q: string;
  sort: Sort;
  cols: string;
}

export function ViewMenu() {
  const r = route.value;
  const v: Asked = r.page === "devices" ? r : { q: "", sort: "id", cols: "" };
  return <Menu name="views" word={T.word} label={T.label}>{(close) => (me.value?.user ? <Views v={v} close={close} /> : <p class="hint">{T.noUser}</p>)}</Menu>;
}

function Views({ v, close }: { v: Asked; close: () => void }) {
  const list = useList<SavedView>((_, stop) => listViews(stop));
  const items = list.items;
  const form = useForm({ name: "" });
  const run = (change: Promise<unknown>) => list.run(() => change);
  const submit = form.submit(async ({ name }) => {
    await createView(partsOf(v, name.trim()));
    form.clear();
    list.reload();
  });
  const here = listPath(v.q, v.sort, "", v.cols);
  return (
    <>
      <Fault of={list} />
      {items?.length === 0 && <p class="hint">{T.none}</p>}
      <ul>
        {items?.map((one) => (
          <li key={one.id} class="saved">
            <a href={viewPath(one)} aria-current={viewPath(one) === here ? "page" : undefined} onClick={close}>{one.name}</a>
            {viewPath(one) !== here && <Sure word={T.replace} sure={T.replaceSure} of={one.name} onSure={() => run(putView(one.id, partsOf(v, one.name)))} />}
            <Sure word={T.drop} sure={T.dropSure} of={one.name} onSure={() => run(deleteView(one.id))} />
          </li>
        ))}
      </ul>
      <form class="save" onSubmit={submit}>
        <Field form={form} name="name" label={T.name} />
        <Submit form={form}>{T.save}</Submit>
      </form>
    </>
  );
}

function partsOf(v: Asked, name: string): ViewParts {
  return { name, q: v.q, sort: v.sort === "id" ? "" : v.sort, ...(v.cols && { columns: v.cols === "id" ? ["id"] : parseColumns(v.cols).map((c) => c.name) }) };
}
