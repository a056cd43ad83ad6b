/* Bundled packages and their licences: /licenses.txt */
import{k as r}from"./chunk-KCZDTOCC.js";var i=100,e=r(new Map);function l(n,t){e.peek().get(n)!==t&&(e.value=new Map([...[...e.peek()].slice(-i),[n,t]]))}export{e as a,l as b};
