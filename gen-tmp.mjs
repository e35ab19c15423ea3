import { generateRequest } from "/tmp/gen/generator.js";
import { Model } from "/work/main/dist/index.js";
import { request } from "undici";
const [family, port, from=0, to=1000, verbose] = process.argv.slice(2);
const model = await Model.load(`${process.env.HOME}/.cache/promptseam-vllm/models/${family}`, {maxModelLength: 100000});
const kinds = new Map();
for (let seed = +from; seed < +to; seed++) {
  const body = generateRequest(seed);
  const send = () => request(`http://127.0.0.1:${port}/v1/chat/completions/render`, {method:"POST", headers:{"content-type":"application/json"}, body});
  const res = await send().catch(send);
  const text = await res.body.text();
  let ours, err; try { ours = [...(await model.render(Buffer.from(body))).tokenIds()]; } catch (e) { err = e; }
  let kind, info="";
  if (res.statusCode === 200) {
    const ids = JSON.parse(text).token_ids;
    if (err) { kind = "we refuse: " + err.code + " " + err.message.slice(0,60); }
    else if (ids.length === ours.length && ids.every((x,i)=>x===ours[i])) kind = "equal";
    else { kind = "DIFFERENT"; let i=0; while(ids[i]===ours[i]) i++; try { info = JSON.stringify([model.decode(ours.slice(Math.max(0,i-5),i+12)), model.decode(ids.slice(Math.max(0,i-5),i+12))]);} catch(e){info=e.message} }
  } else {
    const m = text.slice(0,170);
    kind = err ? "both refuse "+res.statusCode +(verbose?" "+err.code+err.message.slice(0,80):""): `server refuses ${res.statusCode}: ` + m;
  }
  const k = kinds.get(kind) ?? {n:0, seeds:[], info:[]}; k.n++; if (k.seeds.length<4) {k.seeds.push(seed); if (info) k.info.push(info);} kinds.set(kind,k);
}
for (const [k,v] of [...kinds].sort((a,b)=>b[1].n-a[1].n)) console.log(v.n, k, v.seeds.join(), v.info.slice(0,2).join("\n      "));
model.close();
