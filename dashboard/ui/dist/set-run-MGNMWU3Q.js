/* Bundled packages and their licences: /licenses.txt */
import{g as t}from"./chunk-MAHUMPIO.js";function o(e){return t("h1",{children:"Audit"})}function r(e){return t("h1",{children:"System"})}function g(e){return t("h1",{children:"Tasks"})}export{o as AuditPage,r as SystemPage,g as TasksPage};
