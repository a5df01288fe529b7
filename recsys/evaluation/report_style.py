"""The report's style sheet. Series colours: Okabe and Ito's colour-blind-safe set, lightened for dark pages."""

STYLE = """
:root{--page:#fbfaf8;--card:#fff;--ink:#1c1b19;--muted:#6a6760;--line:#e4e1da;--accent:#0b66a8;--other:#b9b6ae;
--wash:#eef5fa;--good:#00704f;--bad:#b04a00;
--s0:#0072b2;--s1:#d55e00;--s2:#009e73;--s3:#cc79a7;--s4:#e69f00;--s5:#56b4e9;--s6:#7a7a7a;--s7:#8c6bb1;
--sans:Inter,ui-sans-serif,system-ui,-apple-system,
"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
--mono:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
@media (prefers-color-scheme:dark){:root{--page:#131416;--card:#1b1d20;--ink:#eceae6;--muted:#9d9a93;--line:#30333a;--accent:#5db3f0;--other:#565a62;
--wash:#1a2733;--good:#4fd1a5;--bad:#ff9a56;
--s0:#4aa8e8;--s1:#ff8a3d;--s2:#2fcf9f;--s3:#e79bc6;--s4:#f3b93e;--s5:#9bd6fa;--s6:#a5a5a5;--s7:#b79be0}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 var(--sans);-webkit-text-size-adjust:100%;font-feature-settings:"tnum"}
main{max-width:1040px;margin:0 auto;padding:clamp(24px,6vw,72px) clamp(16px,4vw,32px) 80px}
h1{font-size:clamp(28px,5vw,44px);line-height:1.12;letter-spacing:-.022em;margin:.1em 0 .35em;font-weight:680;overflow-wrap:anywhere}
h2{font-size:22px;letter-spacing:-.012em;margin:0 0 18px;font-weight:650}
h3{font-size:15px;margin:0 0 10px;font-weight:650}
h4{font-size:12px;margin:14px 0 6px;color:var(--muted);font-weight:550}
section{margin-top:64px}
.over,.whose,.note,.key,figcaption,small{color:var(--muted)}
.over{margin:0;font-size:14px}
.lead{font-size:19px;line-height:1.5;max-width:64ch;margin:0 0 22px}
.whose{font-size:14px;margin:26px 0 10px}
.whose b{color:var(--ink)}
.note{font-size:14px;max-width:76ch}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:0}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:14px 16px}
.card dt{font-size:13px;color:var(--muted)}
.card dd{margin:2px 0 0;font-size:28px;font-weight:640;letter-spacing:-.02em;line-height:1.2}
.card small{font-size:12px}
.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:12px}
table{border-collapse:collapse;width:100%;font-size:14.5px}
th,td{padding:10px 14px;text-align:right;white-space:nowrap;border-top:1px solid var(--line);vertical-align:top;font-variant-numeric:tabular-nums}
thead th{border-top:0;color:var(--muted);font-weight:550;font-size:13px}
th:first-child,td.text{text-align:left}tbody th{font-weight:500}td.text{white-space:normal;min-width:180px}
th i{color:var(--muted);font-style:normal}
td small{display:block;font-size:11.5px;line-height:1.35}
td.best{font-weight:680}td.best small{font-weight:400}td.none{color:var(--muted)}
tr.own{background:var(--wash)}tr.own th{font-weight:680;box-shadow:inset 3px 0 var(--accent)}
.lineage td:nth-child(2),.lineage th:nth-child(2){text-align:left}.lineage th:nth-child(3){text-align:left}
figure{margin:24px 0 0;background:var(--card);border:1px solid var(--line);border-radius:12px;padding:18px clamp(10px,2.5vw,22px) 14px}
.plot{max-width:760px;margin:0 auto}.plot svg{display:block;width:100%;height:auto;overflow:visible}
figcaption{font-size:14px;margin:12px auto 0;max-width:760px}
.scroll+figure{margin-top:16px}h2+figure,.pair>figure{margin-top:0}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,380px),1fr));gap:16px;align-items:start}
.scroll+.pair{margin-top:24px}
.facts{margin:0;background:var(--card);border:1px solid var(--line);border-radius:12px;padding:4px 16px;font-size:14.5px}
.facts div{display:flex;justify-content:space-between;gap:20px;padding:8px 0;border-top:1px solid var(--line)}.facts div:first-child{border-top:0}
.facts dt{color:var(--muted);flex:none}.facts dd{margin:0;text-align:right;overflow-wrap:anywhere;min-width:0}
code{font:12.5px/1.5 var(--mono)}
.tag{display:inline-block;font-size:12px;padding:1px 9px;border-radius:99px;border:1px solid var(--line);color:var(--muted)}
.tag.better{color:var(--good);border-color:currentColor}
.tag.worse{color:var(--bad);border-color:currentColor}
.samples{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,300px),1fr));gap:16px}
article{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:16px 18px;font-size:14.5px;min-width:0}
.history{list-style:none;margin:0;padding:0;color:var(--muted)}.history li{white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
.picks{margin:0;padding:0;list-style:none;counter-reset:n}
.picks li{display:grid;grid-template-columns:1.5em 1fr auto;gap:0 6px;padding:6px 0;border-top:1px solid var(--line);counter-increment:n}
.picks li:first-child{border-top:0}
.picks li::before{content:counter(n);color:var(--muted)}.picks .name{overflow-wrap:anywhere;min-width:0}.score{color:var(--muted)}
.bar{grid-column:2/4;display:flex;height:5px;border-radius:3px;overflow:hidden;margin-top:4px;gap:1px}.bar i{display:block}
.hit{font-size:11px;font-weight:600;color:var(--good);border:1px solid currentColor;border-radius:99px;padding:0 7px;white-space:nowrap}
.key{font-size:12.5px;margin:12px 0 0}
.key span{margin-left:10px;white-space:nowrap}
.key i{display:inline-block;width:9px;height:9px;border-radius:2px;margin-right:4px}
.tests{font-size:13.5px}
.tests th:first-child{white-space:normal;min-width:170px}
.tests th,.tests td{padding:9px 10px}
.tests th i{display:block}
@media (max-width:560px){section{margin-top:48px}
th,td{padding:9px 10px}
.card{padding:12px}
.card dd{font-size:23px}
.cards{grid-template-columns:1fr 1fr}
.models th:first-child{position:sticky;left:0;background:var(--card);white-space:normal;min-width:112px}
.models tr.own th:first-child{background:var(--wash)}}
@media print{body{background:#fff}section{break-inside:avoid}}
"""
