/* Bundled packages and their licences: /licenses.txt */
import{a as ee}from"./chunk-Z62ZBK34.js";import{a as T,f as te}from"./chunk-XWFNNE3E.js";import{a as q,b as H,g as v,m as X}from"./chunk-Z6QBI56I.js";import{Ad as x,Id as n,Lc as Z,Oa as G,Tb as Q,X as R,Y,_ as j,a as P,aa as U,c as m,d as C,f as w,fa as S,k as F,n as N,na as $,pc as V,ra as z,rb as J,u as _,v as K,x as B}from"./chunk-KCZDTOCC.js";var L=F(new Map);function O(e,t){L.value=new Map(L.peek()).set(e,t)}function ne(e){return L.value.get(e)}function oe(){let e=v.value?.mqtt_port??0;return e===0?null:{host:location.hostname.replace(/^\[(.*)\]$/,"$1"),port:e,origin:location.origin}}var W=[["sh","sh"],["powershell","PowerShell"],["cmd","cmd"]],re=/^[A-Za-z0-9_.:+=/-]+$/;function I(e){return re.test(e)?e:"'"+e.replace(/['\u2018\u2019\u201a\u201b]/g,t=>t+t)+"'"}function de(e){if(re.test(e))return e;let t='"'+e.replace(/(\\*)"/g,'$1$1\\"').replace(/(\\+)$/,"$1$1")+'"';return/["%!]/.test(e)?t.replace(/[()%!^"<>&|]/g,"^$&"):t}function E(e){return{sh:T,powershell:I,cmd:de}[e]}var A=[["mosquitto","mosquitto"],["curl","curl"],["python","Python"],["esp32","ESP32"],["go","Go"]],b='{"temperature":21.5}';function se(e){return e==="mosquitto"||e==="curl"}function ie(e,t,o,r,l){let s={user:r?.username||r?.token||"TOKEN",pass:r?.password??"",topic:`devices/${o}/telemetry`,device:o,...l};switch(e){case"mosquitto":return pe(t,s);case"curl":return me(t,s);case"python":return he(s);case"esp32":return fe(s);case"go":return ge(s)}}function pe(e,t){let o=["mosquitto_pub","-h",t.host,"-p",String(t.port),"-u",t.user];return t.pass&&o.push("-P",t.pass),o.push("-q","1","-t",t.topic),e==="powershell"?`'${b}' | `+[...o,"-s"].map(I).join(" "):[...o,"-m",b].map(E(e)).join(" ")}function me(e,t){let o=`${t.origin}/api/v1/telemetry?device=${encodeURIComponent(t.device)}`;return e==="powershell"?`Invoke-RestMethod -Method Post -Uri '${o}' -Headers @{ Authorization = 'Bearer KEY' } -ContentType 'application/json' -Body '${b}'`:["curl","-f","-X","POST","-H","Authorization: Bearer KEY","-H","Content-Type: application/json","-d",b,o].map(e==="sh"?T:E(e)).join(" ")}var h=e=>JSON.stringify(e);function he(e){return`# pip install paho-mqtt
import paho.mqtt.publish as publish

publish.single(
    ${h(e.topic)},
    payload='${b}',
    qos=1,
    hostname=${h(e.host)},
    port=${e.port},
    auth={"username": ${h(e.user)}, "password": ${e.pass?h(e.pass):"None"}},
)
`}function fe(e){return`// Arduino, with the library PubSubClient
#include <WiFi.h>
#include <PubSubClient.h>

WiFiClient net;
PubSubClient mqtt(net);

void setup() {
  WiFi.begin("your network", "its password");
  while (WiFi.status() != WL_CONNECTED) delay(250);
  mqtt.setServer(${h(e.host)}, ${e.port});
}

void loop() {
  if (!mqtt.connected() && !mqtt.connect(${h(e.device)}, ${h(e.user)}, ${e.pass?h(e.pass):"nullptr"})) {
    delay(2000);
    return;
  }
  mqtt.loop();
  mqtt.publish(${h(e.topic)}, "{\\"temperature\\":21.5}");
  delay(10000);
}
`}function ge(e){return`package main

import (
	"log"
	"net"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

func main() {
	o := mqtt.NewClientOptions().AddBroker("tcp://" + net.JoinHostPort(${h(e.host)}, "${e.port}"))
	o.SetClientID(${h(e.device)}).SetUsername(${h(e.user)})${e.pass?`.SetPassword(${h(e.pass)})`:""}
	c := mqtt.NewClient(o)
	await("connect", c.Connect())
	await("publish", c.Publish(${h(e.topic)}, 1, false, \`${b}\`))
	c.Disconnect(250)
}

func await(what string, t mqtt.Token) {
	if !t.WaitTimeout(10 * time.Second) {
		log.Fatal(what, ": no answer within 10 s")
	}
	if t.Error() != nil {
		log.Fatal(what, ": ", t.Error())
	}
}
`}var k={simulate:e=>`Or simulate ${e} devices`,simulated:e=>`${e} simulated devices publish, with the tag sim.`,still:e=>`There are ${e} simulated devices. They do not publish.`,goOn:"Let them publish",remove:"Remove the simulated devices"},ae=25;function ve(){let e=v.value,t=w({of:e,n:0});return t.current.of!==e&&(t.current={of:e,n:t.current.n+(t.current.of?1:0)}),t.current.n}function le({offer:e=!1,turn:t=0}){let o=S(),r=te(o?Q:null,"",`${t} ${ve()}`),[l,s]=m(""),[c,p]=m(!1),d=async f=>{p(!0),s("");try{r.set(await f())}catch(D){s($(D))}finally{p(!1)}},i=r.answer,u=l||(e?r.fault:"");return i?i.devices===0&&!e&&!u?null:n("div",{class:"ways simulation",children:[i.devices===0&&e&&n("button",{type:"button",class:"btn",disabled:c,onClick:()=>{d(()=>x({devices:ae}))},children:k.simulate(ae)}),i.devices>0&&n("p",{role:"status",children:i.running?k.simulated(i.devices):k.still(i.devices)}),i.devices>0&&!i.running&&n("button",{type:"button",class:"btn",disabled:c,onClick:()=>{d(()=>x({devices:i.devices}))},children:k.goOn}),i.devices>0&&n("button",{type:"button",class:"btn",disabled:c,onClick:()=>{d(()=>J())},children:k.remove}),n("p",{class:"error",role:"alert",children:u})]}):u?n("p",{class:"error",role:"alert",children:u}):null}var a={first:"Connect the first device",more:"Add a device",connect:e=>`Connect ${e}`,intro:"Give it an id. Muster makes a token, and the device sends its first value with one command.",id:"Device id",idHint:"letters, digits and . _ : -",name:"Name",optional:"optional",create:"Create device",forbidden:"Needs the role operator or the scope devices:write.",close:"Close",send:"Send its first value",once:"The token is shown only now; the server keeps a hash of it.",unknownToken:"TOKEN stands for the token that was shown when the device was made.",newToken:"Make a new token",noPort:"The server listens on no MQTT port.",tool:"With",shell:"Shell",sends:e=>`What sends the first value of ${e}`,needs:{mosquitto:"mosquitto_pub comes with the Mosquitto clients. Any MQTT client will do.",curl:"KEY stands for an API key with the scope telemetry:write: over HTTP it is not the device itself that writes.",python:"It needs paho-mqtt: pip install paho-mqtt",esp32:"It needs the Arduino core for the ESP32 and PubSubClient.",go:"It needs github.com/eclipse/paho.mqtt.golang: go mod init first && go mod tidy && go run ."},waiting:"Waiting for it to connect",connected:"Connected",authenticated:"Authenticated",notYet:"Not yet authenticated",refused:(e,t,o)=>`Refused: ${e}${t&&` (from ${t})`}, ${o}`,chart:(e,t)=>`${e}, ${t===1?"one value":`${t} values`}`,value:"First value",noValue:"First value not yet received",open:"Open its page",another:"Add another"};function ot({first:e,suggestion:t,onClose:o}){let[r,l]=m(""),s=w(null);return C(()=>{e||s.current?.focus()},[e,r]),n("section",{class:"sec connect","aria-labelledby":"connect-title",onKeyDown:c=>c.key==="Escape"&&!e&&o(),children:[n("header",{children:[n("h2",{id:"connect-title",children:r?a.connect(r):e?a.first:a.more}),(!e||r)&&n("div",{class:"r",children:n("button",{type:"button",class:"btn txt",onClick:o,children:a.close})})]}),r?n(ye,{id:r,onAnother:()=>l("")}):n(be,{field:s,suggestion:t,onMade:l}),!r&&n(le,{offer:!0})]})}function be({field:e,suggestion:t,onMade:o}){let[r,l]=m(t),[s,c]=m(""),[p,d]=m(""),[i,u]=m(!1),f=S();return n("form",{class:"create",onSubmit:async y=>{y.preventDefault(),u(!0),d("");try{let g=await G({id:r.trim(),credential:"token",...s.trim()&&{name:s.trim()}});g.credential&&O(g.device.id,g.credential),o(g.device.id)}catch(g){d($(g))}finally{u(!1)}},children:[n("p",{children:a.intro}),n("div",{class:"fields",children:[n("label",{children:[n("span",{children:[a.id," ",n("small",{children:a.idHint})]}),n("input",{ref:e,class:"mono",value:r,required:!0,maxLength:128,pattern:"[A-Za-z0-9._:\\-]+",autocomplete:"off",spellcheck:!1,"aria-describedby":"create-error",onInput:y=>l(y.currentTarget.value)})]}),n("label",{children:[n("span",{children:[a.name," ",n("small",{children:a.optional})]}),n("input",{value:s,maxLength:200,autocomplete:"off",onInput:y=>c(y.currentTarget.value)})]}),n("button",{type:"submit",class:"btn pri",disabled:i||!f,title:f?void 0:a.forbidden,children:a.create})]}),n("p",{class:"error",id:"create-error",role:"alert",children:p||(f?"":a.forbidden)})]})}function ye({id:e,onAnother:t}){return n("div",{class:"first",children:[n("h3",{children:a.send}),n(we,{id:e}),n($e,{id:e}),n("div",{class:"act",children:[n("a",{class:"btn pri",href:B(e),children:a.open}),n("button",{type:"button",class:"btn",onClick:t,children:a.another})]})]})}function ce(e,t){let o=_.value.get(e);return t.find(([r])=>r===o)?.[0]}function we({id:e}){let t=ne(e),o=oe(),r=ce("tool",A)??"mosquitto",l=ce("shell",W)??(/win/i.test(navigator.platform)?"powershell":"sh");if(!v.value)return null;if(!o)return n("p",{children:a.noPort});let s=(c,p,d,i)=>n("div",{class:"tabs",role:"group","aria-label":p,children:d.map(([u,f])=>n("button",{type:"button","aria-pressed":u===i,onClick:()=>K({[c]:u},!0),children:f},u))});return n("div",{class:"first",children:[n("div",{class:"ways",children:[s("tool",a.tool,A,r),se(r)&&s("shell",a.shell,W,l)]}),n(ee,{text:ie(r,l,e,t,o),label:a.sends(e)}),n("p",{class:"hint",children:[t?a.once:r==="curl"?"":a.unknownToken," ",a.needs[r]]}),!t&&S()&&n(Se,{id:e})]})}function Se({id:e}){let[t,o]=m(""),[r,l]=m(!1);return n("div",{class:"act",children:[n("button",{type:"button",class:"btn",disabled:r,onClick:async()=>{l(!0),o("");try{let c=await z(e,{kind:"token"});O(e,c.credential)}catch(c){o($(c)),l(!1)}},children:a.newToken}),n("p",{class:"error",role:"alert",children:t})]})}function $e({id:e}){let t=N(null),[o]=m({key:"",at:[]});C(()=>X("device:"+e,{},{snapshot:d=>{t.value=d.item},delta:d=>{let i=t.peek(),u=d.set??{};i&&(t.value={...i,...u,values:{...i.values,...u.values}})}}),[e]);let r=t.value,l=Object.entries(r?.values??{}).sort(([,d],[,i])=>i.arrival-d.arrival)[0],s=l!==void 0||r!==null&&r.state!=="never",c=Ce(e,!s),p=w(l);return p.current??=l,l&&Te(o,l[0],l[1]),n(P,{children:[n("ol",{class:"steps","aria-live":"polite",children:[n(M,{done:s||c!==null,current:!s&&!c,children:s||c?a.connected:a.waiting}),n(M,{done:s,current:c!==null&&!s,bad:c!==null&&!s,children:s?a.authenticated:c?a.refused(c.reason,c.peer??"",j(Date.parse(c.last_at),q.value)):a.notYet}),n(M,{done:l!==void 0,current:s&&!l,children:p.current?n(P,{children:[a.value,": ",n("span",{class:"mono",children:p.current[0]})," ",n("b",{title:Y(p.current[1].v),children:R(p.current[1].v)})," ",n("small",{children:U(p.current[1].time)})]}):a.noValue})]}),o.at.length>0&&n(Pe,{name:o.key,at:o.at})]})}var ue=2e3,ke=60;function Ce(e,t){let[o,r]=m(null),[l]=m(()=>H()-ue),s=t?Math.floor(q.value/ue):0;return C(()=>{if(!t)return r(null);let c=new AbortController;return Promise.all([V(e,c.signal),Z(c.signal)]).then(([p,d])=>{let i=[...p.items,...d.items].filter(u=>Date.parse(u.last_at)>=l);r(i.sort((u,f)=>u.last_at<f.last_at?1:-1)[0]??null)},()=>{}),()=>c.abort()},[e,s,t]),o}function Te(e,t,o){typeof o.v!="number"||e.key&&e.key!==t||(e.key=t,e.at[e.at.length-1]?.[0]!==o.time&&(e.at.push([o.time,o.v]),e.at.length>ke&&e.at.shift()))}function Pe({name:e,at:t}){let[o,r]=[t[0][0],t[t.length-1][0]],l=t.map(([,i])=>i),[s,c]=[Math.min(...l),Math.max(...l)],p=i=>r>o?4+(i-o)/(r-o)*292:296,d=i=>c>s?44-(i-s)/(c-s)*40:24;return n("svg",{class:"firstchart",viewBox:"0 0 300 48",role:"img","aria-label":a.chart(e,t.length),children:[n("polyline",{points:t.map(([i,u])=>`${p(i)},${d(u)}`).join(" "),fill:"none",stroke:"currentColor","stroke-width":"1.6"}),n("circle",{cx:p(r),cy:d(l[l.length-1]),r:"3",fill:"currentColor"})]})}function M({done:e,current:t,bad:o=!1,children:r}){return n("li",{class:e?"done":o?"bad":t?"now":"",children:[n("svg",{class:`g ${e?"ok":o?"crit":"idle"}`,viewBox:"0 0 12 12","aria-hidden":"true",children:e?n("circle",{cx:"6",cy:"6",r:"5",fill:"currentColor"}):n("circle",{cx:"6",cy:"6",r:"4.2",fill:"none",stroke:"currentColor","stroke-width":"1.7"})}),n("span",{children:r})]})}export{O as a,ne as b,le as c,ot as d,we as e};
