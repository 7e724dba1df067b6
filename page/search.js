"use strict";
const SHOWN = 20;
const query = document.getElementById("query");
const matches = document.getElementById("matches");
const found = document.getElementById("found");
let index; // titles, steps of the ids, ratings, means; unpacked when it is first asked for

const plain = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();

async function unpack() {
  const packed = Uint8Array.from(atob(document.getElementById("index").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const unpacked = await new Response(stream).json();
  let id = 0;
  unpacked.ids = unpacked.steps.map((step) => (id += step));
  unpacked.plain = unpacked.titles.map(plain);
  return unpacked;
}

async function look() {
  index ??= unpack();
  const { titles, ids, ratings, means, plain: all } = await index;
  const words = plain(query.value).split(/\s+/).filter(Boolean);
  const hits = [];
  if (words.length) {
    for (let at = 0; at < all.length; at++) {
      if (words.every((word) => all[at].includes(word)) || query.value.trim() === String(ids[at])) hits.push(at);
    }
  }
  hits.sort((one, other) => ratings[other] - ratings[one]);
  found.tBodies[0].replaceChildren(...hits.slice(0, SHOWN).map((at) => {
    const row = document.createElement("tr");
    const mean = means[at] === null ? "–" : (means[at] / 100).toFixed(2);
    for (const [place, text] of [titles[at], ids[at], ratings[at].toLocaleString("en"), mean].entries()) {
      const cell = document.createElement(place ? "td" : "th");
      cell.textContent = text; // a title is foreign text
      cell.className = place ? "n" : "title";
      if (!place) cell.scope = "row";
      row.append(cell);
    }
    return row;
  }));
  found.hidden = !hits.length;
  const number = `${hits.length.toLocaleString("en")} of ${all.length.toLocaleString("en")} movies`;
  matches.textContent = words.length
    ? `${number}${hits.length > SHOWN ? `, the ${SHOWN} with the most ratings:` : ""}` : "";
}

query.addEventListener("input", look);
