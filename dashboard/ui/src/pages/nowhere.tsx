// Shown for an address at which there is no page.

const T = {
  title: "There is no page at this address",
  asked: "You asked for",
  home: "Go to the Overview",
};

export function NowherePage({ path }: { path: string }) {
  return (
    <section class="roll nowhere">
      <div>
        <h1>{T.title}</h1>
        <p>{T.asked} <span class="mono">{path}</span></p>
        <p><a class="btn pri" href="/">{T.home}</a></p>
      </div>
    </section>
  );
}
