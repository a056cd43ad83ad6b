// The API page's start: theme, then the document this server serves.

import { render } from "preact";
import { startTheme } from "../lib/theme";
import { ApiPage } from "./page";

startTheme();
render(<ApiPage />, document.getElementById("app")!);
