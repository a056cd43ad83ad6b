// The outline of the world's land, made by tools/uibuild from Natural Earth.
declare module "muster:land" {
  /** An SVG path to be filled by the even-odd rule: x to the east of the 180th meridian, y to the south of the pole. */
  export const LAND: string;
  /** How many units of the path a degree has. */
  export const UNITS: number;
}
