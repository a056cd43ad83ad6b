/* Bundled packages and their licences: /licenses.txt */
import{a as Z}from"./chunk-K25FUERT.js";import{a as k}from"./chunk-MTDBPVMM.js";import{a as T,b as D,g as $,m as V}from"./chunk-LXCA3ZUX.js";import{$ as j,Hd as t,Kc as Q,Na as U,Sb as G,W as _,X as K,Z as R,a as C,c as p,d as y,ea as S,f as M,k as A,ma as w,n as F,oc as J,qa as Y,qb as z,u as N,v as B,x as H,zd as P}from"./chunk-LZCJPW2H.js";var q=A(new Map);function x(e,n){q.value=new Map(q.peek()).set(e,n)}function X(e){return q.value.get(e)}function ee(){let e=$.value?.mqtt_port??0;return e===0?null:{host:location.hostname.replace(/^\[(.*)\]$/,"$1"),port:e,origin:location.origin}}var L=[["sh","sh"],["powershell","PowerShell"],["cmd","cmd"]],te=/^[A-Za-z0-9_.:+=/-]+$/;function O(e){return te.test(e)?e:"'"+e.replace(/['\u2018\u2019\u201a\u201b]/g,n=>n+n)+"'"}function le(e){if(te.test(e))return e;let n='"'+e.replace(/(\\*)"/g,'$1$1\\"').replace(/(\\+)$/,"$1$1")+'"';return/["%!]/.test(e)?n.replace(/[()%!^"<>&|]/g,"^$&"):n}function W(e){return{sh:k,powershell:O,cmd:le}[e]}var I=[["mosquitto","mosquitto"],["curl","curl"],["python","Python"],["esp32","ESP32"],["go","Go"]],v='{"temperature":21.5}';function ne(e){return e==="mosquitto"||e==="curl"}function oe(e,n,o,r,i){let l={user:r?.username||r?.token||"TOKEN",pass:r?.password??"",topic:`devices/${o}/telemetry`,device:o,...i};switch(e){case"mosquitto":return ae(n,l);case"curl":return ce(n,l);case"python":return ue(l);case"esp32":return de(l);case"go":return pe(l)}}function ae(e,n){let o=["mosquitto_pub","-h",n.host,"-p",String(n.port),"-u",n.user];return n.pass&&o.push("-P",n.pass),o.push("-q","1","-t",n.topic),e==="powershell"?`'${v}' | `+[...o,"-s"].map(O).join(" "):[...o,"-m",v].map(W(e)).join(" ")}function ce(e,n){let o=`${n.origin}/api/v1/telemetry?device=${encodeURIComponent(n.device)}`;return e==="powershell"?`Invoke-RestMethod -Method Post -Uri '${o}' -Headers @{ Authorization = 'Bearer KEY' } -ContentType 'application/json' -Body '${v}'`:["curl","-f","-X","POST","-H","Authorization: Bearer KEY","-H","Content-Type: application/json","-d",v,o].map(e==="sh"?k:W(e)).join(" ")}var m=e=>JSON.stringify(e);function ue(e){return`# pip install paho-mqtt
import paho.mqtt.publish as publish

publish.single(
    ${m(e.topic)},
    payload='${v}',
    qos=1,
    hostname=${m(e.host)},
    port=${e.port},
    auth={"username": ${m(e.user)}, "password": ${e.pass?m(e.pass):"None"}},
)
`}function de(e){return`// Arduino, with the library PubSubClient
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
`}function pe(e){return`package main

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
	if t := c.Publish(${m(e.topic)}, 1, false, \`${v}\`); t.WaitTimeout(10*time.Second) && t.Error() != nil {
		log.Fatal(t.Error())
	}
}
`}var s={first:"Connect the first device",more:"Add a device",connect:e=>`Connect ${e}`,intro:"Give it an id. Muster makes a token, and the device sends its first value with one command.",id:"Device id",idHint:"letters, digits and . _ : -",name:"Name",optional:"optional",create:"Create device",forbidden:"Needs the role operator or the scope devices:write.",close:"Close",send:"Send its first value",once:"The token is shown only now; the server keeps a hash of it.",unknownToken:"TOKEN stands for the token that was shown when the device was made.",newToken:"Make a new token",noPort:"The server listens on no MQTT port.",tool:"With",shell:"Shell",sends:e=>`What sends the first value of ${e}`,needs:{mosquitto:"mosquitto_pub comes with the Mosquitto clients. Any MQTT client will do.",curl:"KEY stands for an API key with the scope telemetry:write: over HTTP it is not the device itself that writes.",python:"It needs paho-mqtt: pip install paho-mqtt",esp32:"It needs the Arduino core for the ESP32 and PubSubClient.",go:"It needs github.com/eclipse/paho.mqtt.golang: go mod init first && go mod tidy && go run ."},waiting:"Waiting for it to connect",connected:"Connected",authenticated:"Authenticated",notYet:"Not yet authenticated",refused:(e,n,o)=>`Refused: ${e}${n&&` (from ${n})`}, ${o}`,chart:(e,n)=>`${e}, ${n===1?"one value":`${n} values`}`,simulate:e=>`Or simulate ${e} devices`,simulated:e=>`${e} simulated devices publish, with the tag sim.`,still:e=>`There are ${e} simulated devices. They do not publish.`,goOn:"Let them publish",unsimulate:"Remove the simulated devices",value:"First value",noValue:"First value not yet received",open:"Open its page",another:"Add another"};function Ye({first:e,suggestion:n,onClose:o}){let[r,i]=p(""),l=M(null);return y(()=>{e||l.current?.focus()},[e,r]),t("section",{class:"sec connect","aria-labelledby":"connect-title",onKeyDown:a=>a.key==="Escape"&&!e&&o(),children:[t("header",{children:[t("h2",{id:"connect-title",children:r?s.connect(r):e?s.first:s.more}),(!e||r)&&t("div",{class:"r",children:t("button",{type:"button",class:"btn txt",onClick:o,children:s.close})})]}),r?t(he,{id:r,onAnother:()=>i("")}):t(me,{field:l,suggestion:n,onMade:i}),!r&&t($e,{})]})}function me({field:e,suggestion:n,onMade:o}){let[r,i]=p(n),[l,a]=p(""),[d,u]=p(""),[c,h]=p(!1),f=S();return t("form",{class:"create",onSubmit:async b=>{b.preventDefault(),h(!0),u("");try{let g=await U({id:r.trim(),credential:"token",...l.trim()&&{name:l.trim()}});g.credential&&x(g.device.id,g.credential),o(g.device.id)}catch(g){u(w(g))}finally{h(!1)}},children:[t("p",{children:s.intro}),t("div",{class:"fields",children:[t("label",{children:[t("span",{children:[s.id," ",t("small",{children:s.idHint})]}),t("input",{ref:e,class:"mono",value:r,required:!0,maxLength:128,pattern:"[A-Za-z0-9._:\\-]+",autocomplete:"off",spellcheck:!1,"aria-describedby":"create-error",onInput:b=>i(b.currentTarget.value)})]}),t("label",{children:[t("span",{children:[s.name," ",t("small",{children:s.optional})]}),t("input",{value:l,maxLength:200,autocomplete:"off",onInput:b=>a(b.currentTarget.value)})]}),t("button",{type:"submit",class:"btn pri",disabled:c||!f,title:f?void 0:s.forbidden,children:s.create})]}),t("p",{class:"error",id:"create-error",role:"alert",children:d||(f?"":s.forbidden)})]})}function he({id:e,onAnother:n}){return t("div",{class:"first",children:[t("h3",{children:s.send}),t(fe,{id:e}),t(ve,{id:e}),t("div",{class:"act",children:[t("a",{class:"btn pri",href:H(e),children:s.open}),t("button",{type:"button",class:"btn",onClick:n,children:s.another})]})]})}function re(e,n){let o=N.value.get(e);return n.find(([r])=>r===o)?.[0]}function fe({id:e}){let n=X(e),o=ee(),r=re("tool",I)??"mosquitto",i=re("shell",L)??(/win/i.test(navigator.platform)?"powershell":"sh");if(!$.value)return null;if(!o)return t("p",{children:s.noPort});let l=(a,d,u,c)=>t("div",{class:"tabs",role:"group","aria-label":d,children:u.map(([h,f])=>t("button",{type:"button","aria-pressed":h===c,onClick:()=>B({[a]:h},!0),children:f},h))});return t("div",{class:"first",children:[t("div",{class:"ways",children:[l("tool",s.tool,I,r),ne(r)&&l("shell",s.shell,L,i)]}),t(Z,{text:oe(r,i,e,n,o),label:s.sends(e)}),t("p",{class:"hint",children:[n?s.once:r==="curl"?"":s.unknownToken," ",s.needs[r]]}),!n&&S()&&t(ge,{id:e})]})}function ge({id:e}){let[n,o]=p(""),[r,i]=p(!1);return t("div",{class:"act",children:[t("button",{type:"button",class:"btn",disabled:r,onClick:async()=>{i(!0),o("");try{let a=await Y(e,{kind:"token"});x(e,a.credential)}catch(a){o(w(a)),i(!1)}},children:s.newToken}),t("p",{class:"error",role:"alert",children:n})]})}function ve({id:e}){let n=F(null),[o]=p({key:"",at:[]});y(()=>V("device:"+e,{},{snapshot:d=>{n.value=d.item},delta:d=>{let u=n.peek(),c=d.set??{};u&&(n.value={...u,...c,values:{...u.values,...c.values}})}}),[e]);let r=n.value,i=Object.entries(r?.values??{}).sort(([,d],[,u])=>u.arrival-d.arrival)[0],l=i!==void 0||r!==null&&r.state!=="never",a=ye(e,!l);return i&&Se(o,i[0],i[1]),t(C,{children:[t("ol",{class:"steps","aria-live":"polite",children:[t(E,{done:l||a!==null,current:!l&&!a,children:l||a?s.connected:s.waiting}),t(E,{done:l,current:a!==null&&!l,bad:a!==null&&!l,children:l?s.authenticated:a?s.refused(a.reason,a.peer??"",R(Date.parse(a.last_at),T.value)):s.notYet}),t(E,{done:i!==void 0,current:l&&!i,children:i?t(C,{children:[s.value,": ",t("span",{class:"mono",children:i[0]})," ",t("b",{title:K(i[1].v),children:_(i[1].v)})," ",t("small",{children:j(i[1].time)})]}):s.noValue})]}),o.at.length>0&&t(we,{name:o.key,at:o.at})]})}var se=2e3,be=60;function ye(e,n){let[o,r]=p(null),[i]=p(()=>D()-se),l=n?Math.floor(T.value/se):0;return y(()=>{if(!n)return r(null);let a=new AbortController;return Promise.all([J(e,a.signal),Q(a.signal)]).then(([d,u])=>{let c=[...d.items,...u.items].filter(h=>Date.parse(h.last_at)>=i);r(c.sort((h,f)=>h.last_at<f.last_at?1:-1)[0]??null)},()=>{}),()=>a.abort()},[e,l,n]),o}function Se(e,n,o){typeof o.v!="number"||e.key&&e.key!==n||(e.key=n,e.at[e.at.length-1]?.[0]!==o.time&&(e.at.push([o.time,o.v]),e.at.length>be&&e.at.shift()))}function we({name:e,at:n}){let[o,r]=[n[0][0],n[n.length-1][0]],i=n.map(([,c])=>c),[l,a]=[Math.min(...i),Math.max(...i)],d=c=>r>o?4+(c-o)/(r-o)*292:296,u=c=>a>l?44-(c-l)/(a-l)*40:24;return t("svg",{class:"firstchart",viewBox:"0 0 300 48",role:"img","aria-label":s.chart(e,n.length),children:[t("polyline",{points:n.map(([c,h])=>`${d(c)},${u(h)}`).join(" "),fill:"none",stroke:"currentColor","stroke-width":"1.6"}),t("circle",{cx:d(r),cy:u(i[i.length-1]),r:"3",fill:"currentColor"})]})}function $e(){let[e,n]=p(null),[o,r]=p(""),[i,l]=p(!1),a=async u=>{l(!0),r("");try{n(await u())}catch(c){r(w(c))}finally{l(!1)}};return y(()=>{a(()=>G())},[]),!S()||!e?t("p",{class:"error",role:"alert",children:o}):t("div",{class:"ways simulation",children:[e.devices===0&&t("button",{type:"button",class:"btn",disabled:i,onClick:()=>{a(()=>P({devices:ie}))},children:s.simulate(ie)}),e.devices>0&&t("p",{role:"status",children:e.running?s.simulated(e.devices):s.still(e.devices)}),e.devices>0&&!e.running&&t("button",{type:"button",class:"btn",disabled:i,onClick:()=>{a(()=>P({devices:e.devices}))},children:s.goOn}),e.devices>0&&t("button",{type:"button",class:"btn",disabled:i,onClick:()=>{a(()=>z())},children:s.unsimulate}),t("p",{class:"error",role:"alert",children:o})]})}var ie=25;function E({done:e,current:n,bad:o=!1,children:r}){return t("li",{class:e?"done":o?"bad":n?"now":"",children:[t("svg",{class:`g ${e?"ok":o?"crit":"idle"}`,viewBox:"0 0 12 12","aria-hidden":"true",children:e?t("circle",{cx:"6",cy:"6",r:"5",fill:"currentColor"}):t("circle",{cx:"6",cy:"6",r:"4.2",fill:"none",stroke:"currentColor","stroke-width":"1.7"})}),t("span",{children:r})]})}export{x as a,X as b,Ye as c,fe as d};
