/* Bundled packages and their licences: /licenses.txt */
function r(e){return/^[A-Za-z0-9_.:@%+=/-]+$/.test(e)?e:"'"+e.replaceAll("'","'\\''")+"'"}async function n(e,t){if(navigator.clipboard)try{return await navigator.clipboard.writeText(e),!0}catch{}return t?(getSelection()?.selectAllChildren(t),document.execCommand("copy")):!1}export{r as a,n as b};
