/* Bundled packages and their licences: /licenses.txt */
import{u as n,v as i}from"./chunk-KCZDTOCC.js";function d(t,e){let s=n.value.get(t);return[e.find(r=>r===s)??e[0],r=>i({[t]:r===e[0]?"":r},!0)]}function o(t){return[n.value.get(t)??"",e=>i({[t]:e},!0)]}export{d as a,o as b};
