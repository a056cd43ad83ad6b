// How large an element is, followed as it changes.

import { useLayoutEffect, useState } from "preact/hooks";

/** The width of an element, and how many device pixels a CSS pixel has. */
export function useSize(el: { current: HTMLElement | null }): [number, number] {
  const [size, set] = useState<[number, number]>([0, devicePixelRatio || 1]);
  useLayoutEffect(() => {
    const look = () => el.current && set([Math.floor(el.current.clientWidth), devicePixelRatio || 1]);
    const watch = new ResizeObserver(look);
    try {
      watch.observe(el.current!, { box: "device-pixel-content-box" }); // tells of another ratio too
    } catch {
      watch.observe(el.current!); // a browser that has no such box
    }
    let screen: MediaQueryList | null = null;
    const follow = () => { // the ratio is another after zooming, and on another screen
      removeEventListener("resize", look);
      screen?.removeEventListener("change", follow);
      screen = matchMedia(`(resolution: ${devicePixelRatio || 1}dppx)`);
      screen.addEventListener("change", follow);
      look();
    };
    follow();
    addEventListener("resize", look);
    return () => {
      watch.disconnect();
      screen?.removeEventListener("change", follow);
    };
  }, []);
  return size;
}
