/* Bundled packages and their licences: /licenses.txt */
function e(){return document.querySelector('meta[name="muster-version"]')?.content??""}export{e as a};
