// The five-bar tally: a muster is a roll call.

export function Logo() {
  return (
    <svg class="logo" width="26" height="22" viewBox="0 0 26 22" aria-hidden="true">
      <g stroke="currentColor" stroke-width="2.4" stroke-linecap="round">
        <path d="M4 3v16M10 3v16M16 3v16M22 3v16" />
        <path class="slash" d="M1.5 17 24.5 6" />
      </g>
    </svg>
  );
}
