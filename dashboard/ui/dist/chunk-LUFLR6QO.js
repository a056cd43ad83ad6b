/* Bundled packages and their licences: /licenses.txt */
import{k as o}from"./chunk-KCZDTOCC.js";var r=o(null);function i(n){r.value=n}export{r as a,i as b};
