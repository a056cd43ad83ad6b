/* Bundled packages and their licences: /licenses.txt */
import{a as J}from"./chunk-ZBGIKDQF.js";import{a as T}from"./chunk-7STJ22OG.js";import{a as P,b as F,g as k,m as G}from"./chunk-BOBWSMUI.js";import{Fd as t,Ic as z,La as R,Qb as Y,U as N,V as B,X as H,Z as _,a as C,c as p,ca as w,d as y,f as E,k as M,ka as $,mc as U,n as A,oa as K,ob as j,v as D,xd as q}from"./chunk-LJLECL3K.js";var x=M(new Map);function L(e,n){x.value=new Map(x.peek()).set(e,n)}function Q(e){return x.value.get(e)}function V(){let e=k.value?.mqtt_port??0;return e===0?null:{host:location.hostname.replace(/^\[(.*)\]$/,"$1"),port:e,origin:location.origin}}var Z=[["sh","sh"],["powershell","PowerShell"],["cmd","cmd"]],X=/^[A-Za-z0-9_.:+=/-]+$/;function O(e){return X.test(e)?e:"'"+e.replace(/['\u2018\u2019\u201a\u201b]/g,n=>n+n)+"'"}function se(e){if(X.test(e))return e;let n='"'+e.replace(/(\\*)"/g,'$1$1\\"').replace(/(\\+)$/,"$1$1")+'"';return/["%!]/.test(e)?n.replace(/[()%!^"<>&|]/g,"^$&"):n}function W(e){return{sh:T,powershell:O,cmd:se}[e]}var ee=[["mosquitto","mosquitto"],["curl","curl"],["python","Python"],["esp32","ESP32"],["go","Go"]],b='{"temperature":21.5}';function te(e){return e==="mosquitto"||e==="curl"}function ne(e,n,o,r,l){let i={user:r?.username||r?.token||"TOKEN",pass:r?.password??"",topic:`devices/${o}/telemetry`,device:o,...l};switch(e){case"mosquitto":return ie(n,i);case"curl":return le(n,i);case"python":return ae(i);case"esp32":return ce(i);case"go":return ue(i)}}function ie(e,n){let o=["mosquitto_pub","-h",n.host,"-p",String(n.port),"-u",n.user];return n.pass&&o.push("-P",n.pass),o.push("-q","1","-t",n.topic),e==="powershell"?`'${b}' | `+[...o,"-s"].map(O).join(" "):[...o,"-m",b].map(W(e)).join(" ")}function le(e,n){let o=`${n.origin}/api/v1/telemetry?device=${encodeURIComponent(n.device)}`;return e==="powershell"?`Invoke-RestMethod -Method Post -Uri '${o}' -Headers @{ Authorization = 'Bearer KEY' } -ContentType 'application/json' -Body '${b}'`:["curl","-f","-X","POST","-H","Authorization: Bearer KEY","-H","Content-Type: application/json","-d",b,o].map(e==="sh"?T:W(e)).join(" ")}var m=e=>JSON.stringify(e);function ae(e){return`# pip install paho-mqtt
import paho.mqtt.publish as publish

publish.single(
    ${m(e.topic)},
    payload='${b}',
    qos=1,
    hostname=${m(e.host)},
    port=${e.port},
    auth={"username": ${m(e.user)}, "password": ${e.pass?m(e.pass):"None"}},
)
`}function ce(e){return`// Arduino, with the library PubSubClient
#include <WiFi.h>
#include <PubSubClient.h>

WiFiClient net;
PubSubClient mqtt(net);

void setup() {
  WiFi.begin("your network", "its password");
  while (WiFi.status() != WL_CONNECTED) delay(250);
  mqtt.setServer(${m(e.host)}, ${e.port});
}

void loop() {
  if (!mqtt.connected() && !mqtt.connect(${m(e.device)}, ${m(e.user)}, ${e.pass?m(e.pass):"nullptr"})) {
    delay(2000);
    return;
  }
  mqtt.loop();
  mqtt.publish(${m(e.topic)}, "{\\"temperature\\":21.5}");
  delay(10000);
}
`}function ue(e){return`package main

import (
	"log"
	"net"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

func main() {
	o := mqtt.NewClientOptions().AddBroker("tcp://" + net.JoinHostPort(${m(e.host)}, "${e.port}"))
	o.SetClientID(${m(e.device)}).SetUsername(${m(e.user)})${e.pass?`.SetPassword(${m(e.pass)})`:""}
	c := mqtt.NewClient(o)
	if t := c.Connect(); t.WaitTimeout(10*time.Second) && t.Error() != nil {
		log.Fatal(t.Error())
	}
	defer c.Disconnect(250)
	if t := c.Publish(${m(e.topic)}, 1, false, \`${b}\`); t.WaitTimeout(10*time.Second) && t.Error() != nil {
		log.Fatal(t.Error())
	}
}
`}var s={first:"Connect the first device",more:"Add a device",connect:e=>`Connect ${e}`,intro:"Give it an id. Muster makes a token, and the device sends its first value with one command.",id:"Device id",idHint:"letters, digits and . _ : -",name:"Name",optional:"optional",create:"Create device",forbidden:"Needs the role operator or the scope devices:write.",close:"Close",send:"Send its first value",once:"The token is shown only now; the server keeps a hash of it.",unknownToken:"TOKEN stands for the token that was shown when the device was made.",newToken:"Make a new token",noPort:"The server listens on no MQTT port.",tool:"With",shell:"Shell",sends:e=>`What sends the first value of ${e}`,needs:{mosquitto:"mosquitto_pub comes with the Mosquitto clients. Any MQTT client will do.",curl:"KEY stands for an API key with the scope telemetry:write: over HTTP it is not the device itself that writes.",python:"It needs paho-mqtt: pip install paho-mqtt",esp32:"It needs the Arduino core for the ESP32 and PubSubClient.",go:"It needs github.com/eclipse/paho.mqtt.golang: go mod init first && go mod tidy && go run ."},waiting:"Waiting for it to connect",connected:"Connected",authenticated:"Authenticated",notYet:"Not yet authenticated",refused:(e,n,o)=>`Refused: ${e}${n&&` (from ${n})`}, ${o}`,chart:(e,n)=>`${e}, ${n===1?"one value":`${n} values`}`,simulate:e=>`Or simulate ${e} devices`,simulated:e=>`${e} simulated devices publish, with the tag sim.`,still:e=>`There are ${e} simulated devices. They do not publish.`,goOn:"Let them publish",unsimulate:"Remove the simulated devices",value:"First value",noValue:"First value not yet received",open:"Open its page",another:"Add another"};function Ke({first:e,suggestion:n,onClose:o}){let[r,l]=p(""),i=E(null);return y(()=>{e||i.current?.focus()},[e,r]),t("section",{class:"sec connect","aria-labelledby":"connect-title",onKeyDown:a=>a.key==="Escape"&&!e&&o(),children:[t("header",{children:[t("h2",{id:"connect-title",children:r?s.connect(r):e?s.first:s.more}),(!e||r)&&t("div",{class:"r",children:t("button",{type:"button",class:"btn txt",onClick:o,children:s.close})})]}),r?t(pe,{id:r,onAnother:()=>l("")}):t(de,{field:i,suggestion:n,onMade:l}),!r&&t(Se,{})]})}function de({field:e,suggestion:n,onMade:o}){let[r,l]=p(n),[i,a]=p(""),[d,u]=p(""),[c,h]=p(!1),f=w();return t("form",{class:"create",onSubmit:async g=>{g.preventDefault(),h(!0),u("");try{let v=await R({id:r.trim(),credential:"token",...i.trim()&&{name:i.trim()}});v.credential&&L(v.device.id,v.credential),o(v.device.id)}catch(v){u($(v))}finally{h(!1)}},children:[t("p",{children:s.intro}),t("div",{class:"fields",children:[t("label",{children:[t("span",{children:[s.id," ",t("small",{children:s.idHint})]}),t("input",{ref:e,class:"mono",value:r,required:!0,maxLength:128,pattern:"[A-Za-z0-9._:\\-]+",autocomplete:"off",spellcheck:!1,"aria-describedby":"create-error",onInput:g=>l(g.currentTarget.value)})]}),t("label",{children:[t("span",{children:[s.name," ",t("small",{children:s.optional})]}),t("input",{value:i,maxLength:200,autocomplete:"off",onInput:g=>a(g.currentTarget.value)})]}),t("button",{type:"submit",class:"btn pri",disabled:c||!f,title:f?void 0:s.forbidden,children:s.create})]}),t("p",{class:"error",id:"create-error",role:"alert",children:d||(f?"":s.forbidden)})]})}function pe({id:e,onAnother:n}){return t("div",{class:"first",children:[t("h3",{children:s.send}),t(me,{id:e}),t(fe,{id:e}),t("div",{class:"act",children:[t("a",{class:"btn pri",href:D(e),children:s.open}),t("button",{type:"button",class:"btn",onClick:n,children:s.another})]})]})}function me({id:e}){let n=Q(e),o=V(),[r,l]=p("mosquitto"),[i,a]=p(/win/i.test(navigator.platform)?"powershell":"sh");if(!k.value)return null;if(!o)return t("p",{children:s.noPort});let d=(u,c,h,f)=>t("div",{class:"tabs",role:"group","aria-label":u,children:c.map(([S,g])=>t("button",{type:"button","aria-pressed":S===h,onClick:()=>f(S),children:g},S))});return t("div",{class:"first",children:[t("div",{class:"ways",children:[d(s.tool,ee,r,l),te(r)&&d(s.shell,Z,i,a)]}),t(J,{text:ne(r,i,e,n,o),label:s.sends(e)}),t("p",{class:"hint",children:[n?s.once:r==="curl"?"":s.unknownToken," ",s.needs[r]]}),!n&&w()&&t(he,{id:e})]})}function he({id:e}){let[n,o]=p(""),[r,l]=p(!1);return t("div",{class:"act",children:[t("button",{type:"button",class:"btn",disabled:r,onClick:async()=>{l(!0),o("");try{let a=await K(e,{kind:"token"});L(e,a.credential)}catch(a){o($(a)),l(!1)}},children:s.newToken}),t("p",{class:"error",role:"alert",children:n})]})}function fe({id:e}){let n=A(null),[o]=p({key:"",at:[]});y(()=>G("device:"+e,{},{snapshot:d=>{n.value=d.item},delta:d=>{let u=n.peek(),c=d.set??{};u&&(n.value={...u,...c,values:{...u.values,...c.values}})}}),[e]);let r=n.value,l=Object.entries(r?.values??{}).sort(([,d],[,u])=>u.arrival-d.arrival)[0],i=l!==void 0||r!==null&&r.state!=="never",a=ve(e,!i);return l&&be(o,l[0],l[1]),t(C,{children:[t("ol",{class:"steps","aria-live":"polite",children:[t(I,{done:i||a!==null,current:!i&&!a,children:i||a?s.connected:s.waiting}),t(I,{done:i,current:a!==null&&!i,bad:a!==null&&!i,children:i?s.authenticated:a?s.refused(a.reason,a.peer??"",H(Date.parse(a.last_at),P.value)):s.notYet}),t(I,{done:l!==void 0,current:i&&!l,children:l?t(C,{children:[s.value,": ",t("span",{class:"mono",children:l[0]})," ",t("b",{title:B(l[1].v),children:N(l[1].v)})," ",t("small",{children:_(l[1].time)})]}):s.noValue})]}),o.at.length>0&&t(ye,{name:o.key,at:o.at})]})}var oe=2e3,ge=60;function ve(e,n){let[o,r]=p(null),[l]=p(()=>F()-oe),i=n?Math.floor(P.value/oe):0;return y(()=>{if(!n)return r(null);let a=new AbortController;return Promise.all([U(e,a.signal),z(a.signal)]).then(([d,u])=>{let c=[...d.items,...u.items].filter(h=>Date.parse(h.last_at)>=l);r(c.sort((h,f)=>h.last_at<f.last_at?1:-1)[0]??null)},()=>{}),()=>a.abort()},[e,i,n]),o}function be(e,n,o){typeof o.v!="number"||e.key&&e.key!==n||(e.key=n,e.at[e.at.length-1]?.[0]!==o.time&&(e.at.push([o.time,o.v]),e.at.length>ge&&e.at.shift()))}function ye({name:e,at:n}){let[o,r]=[n[0][0],n[n.length-1][0]],l=n.map(([,c])=>c),[i,a]=[Math.min(...l),Math.max(...l)],d=c=>r>o?4+(c-o)/(r-o)*292:296,u=c=>a>i?44-(c-i)/(a-i)*40:24;return t("svg",{class:"firstchart",viewBox:"0 0 300 48",role:"img","aria-label":s.chart(e,n.length),children:[t("polyline",{points:n.map(([c,h])=>`${d(c)},${u(h)}`).join(" "),fill:"none",stroke:"currentColor","stroke-width":"1.6"}),t("circle",{cx:d(r),cy:u(l[l.length-1]),r:"3",fill:"currentColor"})]})}function Se(){let[e,n]=p(null),[o,r]=p(""),[l,i]=p(!1),a=async u=>{i(!0),r("");try{n(await u())}catch(c){r($(c))}finally{i(!1)}};return y(()=>{a(()=>Y())},[]),!w()||!e?t("p",{class:"error",role:"alert",children:o}):t("div",{class:"ways simulation",children:[e.devices===0&&t("button",{type:"button",class:"btn",disabled:l,onClick:()=>{a(()=>q({devices:re}))},children:s.simulate(re)}),e.devices>0&&t("p",{role:"status",children:e.running?s.simulated(e.devices):s.still(e.devices)}),e.devices>0&&!e.running&&t("button",{type:"button",class:"btn",disabled:l,onClick:()=>{a(()=>q({devices:e.devices}))},children:s.goOn}),e.devices>0&&t("button",{type:"button",class:"btn",disabled:l,onClick:()=>{a(()=>j())},children:s.unsimulate}),t("p",{class:"error",role:"alert",children:o})]})}var re=25;function I({done:e,current:n,bad:o=!1,children:r}){return t("li",{class:e?"done":o?"bad":n?"now":"",children:[t("svg",{class:`g ${e?"ok":o?"crit":"idle"}`,viewBox:"0 0 12 12","aria-hidden":"true",children:e?t("circle",{cx:"6",cy:"6",r:"5",fill:"currentColor"}):t("circle",{cx:"6",cy:"6",r:"4.2",fill:"none",stroke:"currentColor","stroke-width":"1.7"})}),t("span",{children:r})]})}export{L as a,Q as b,Ke as c,me as d};
