// Numbers are kept compressed; a browser that can unpack them saves plain csv, any other the .csv.gz.
for (const link of document.querySelectorAll("a[data-csv]")) {
  link.addEventListener("click", async (event) => {
    if (!("DecompressionStream" in window)) return;
    event.preventDefault();
    const packed = Uint8Array.from(atob(link.href.split(",")[1]), (character) => character.charCodeAt(0));
    const plain = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).blob();
    const save = document.createElement("a");
    save.href = URL.createObjectURL(plain);
    save.download = link.dataset.csv;
    save.click();
    setTimeout(() => URL.revokeObjectURL(save.href), 1000);
  });
}
const dialog = document.querySelector("dialog");
for (const button of document.querySelectorAll("button.enlarge")) {
  button.addEventListener("click", () => {
    const image = button.querySelector("img");
    dialog.querySelector("img").src = image.src;
    dialog.querySelector("img").alt = image.alt;
    dialog.showModal();
  });
}
dialog.querySelector("button").addEventListener("click", () => dialog.close());
